# Two commands for a new user: `make demo` and `make test`. Both make .venv when it is not there.
# `make test` leaves out the tests marked slow, `make test-all` runs those as well.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,serve
DEMO_FLAGS ?=
TESTS ?=
# a process for each of two cores; a file's tests stay together, as they share what they start
PARALLEL ?= -n 2 --dist loadfile

.PHONY: demo test test-all test-flower coverage lint clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e ".[$(EXTRAS)]"
	touch $@

demo: $(VENV)/.installed
	$(VENV)/bin/python experiments/compare.py $(DEMO_FLAGS)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow" $(TESTS)

test-all: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(PARALLEL) $(TESTS)

# In an environment of its own: Flower holds some packages back at older versions.
# With SKINFL_FUZZ=600, some 10,000 spoilt messages are tried instead of 700.
test-flower:
	$(MAKE) --no-print-directory test-all VENV=$(VENV)-flower EXTRAS=dev,serve,flower TESTS=tests/flower PARALLEL=

coverage: $(VENV)/.installed
	$(VENV)/bin/python -m pytest --cov --cov-report=term-missing:skip-covered

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	# 'long' is torch.long to a reader, Python 2's to vermin
	$(VENV)/bin/vermin --target=3.8- --violations --no-tips --backport typing --exclude long \
	    --exclude-regex 'skinfl/flower/' skinfl experiments benchmarks tests
	# which way imports point: [tool.importlinter] in pyproject.toml; it is made for newer Pythons only
	if [ -x $(VENV)/bin/lint-imports ]; then $(VENV)/bin/lint-imports --no-cache; \
	    else echo "NOT RUN: lint-imports, which needs Python 3.10 or newer"; fi
	# the package's types, and a user's own strictly: [tool.mypy] in pyproject.toml
	if [ -x $(VENV)/bin/mypy ]; then $(VENV)/bin/mypy && $(VENV)/bin/mypy --strict tests/typing_example.py; \
	    else echo "NOT RUN: mypy, which needs Python 3.10 or newer"; fi

clean:
	rm -rf $(VENV) $(VENV)-flower build *.egg-info .pytest_cache .ruff_cache .import_linter_cache .mypy_cache .hypothesis
