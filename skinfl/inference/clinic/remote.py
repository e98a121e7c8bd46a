"""Diagnosis by a server: normalised images in, logits out, ciphertexts in between."""

from __future__ import annotations

import ipaddress
import ssl
import time
from typing import Any, Dict, List, Optional
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np

from skinfl.errors import MessageError, MissingExtra, SkinflError, is_missing
from skinfl.inference.clinic.client import BatchClient, LatencyClient
from skinfl.inference.info import ModelInfo, from_json
from skinfl.inference.messages import MEDIA_TYPE, pack, unpack

#: seconds between tries where the server is busy
_WAIT = (0.5, 1.0, 2.0, 4.0)
#: how often keys are sent for one image before giving up
_REGISTRATIONS = 6


class ServerError(SkinflError):
    """A server that cannot be reached, or that refused a request."""


class RemoteModel:
    """A server's model; keys are made here, and only evaluation keys and ciphertexts leave.

    ``certificates`` is a file of authorities to trust for ``https`` instead of the system's. Raises
    :class:`ServerError` where the server cannot be reached, and
    :class:`~skinfl.errors.MessageError` where what it says is unsound.
    """

    def __init__(self, url: str, certificates: Optional[str] = None, timeout: float = 60.0):
        try:
            import httpx
        except ImportError as error:
            if not is_missing("httpx", error):
                raise
            raise MissingExtra("httpx", "serve", "diagnosis by a server") from error
        self._httpx = httpx
        self._url = url.rstrip("/")
        try:
            trust: Any = ssl.create_default_context(cafile=certificates) if certificates else True
        except (OSError, ssl.SSLError) as error:
            raise ServerError(f"{certificates} cannot be read as certificates: {error}") from error
        self._proxy = proxy_of(self._url)
        # a transport of its own keeps httpx from asking the environment for a proxy
        direct = None if self._proxy else httpx.HTTPTransport(verify=trust)
        try:
            self._http = httpx.Client(verify=trust, timeout=timeout, transport=direct)
        except (ValueError, ImportError) as error:
            raise ServerError(f"the proxy {self._proxy} cannot be used: {error}") from None
        answer = self._request("GET", "/v1/model")
        try:
            self.info: ModelInfo = from_json(answer.json())
        except ValueError as error:
            raise MessageError("server", "it does not answer in JSON: is this a skinfl server?") from error
        self._client: Optional[LatencyClient] = None
        self._keys = ""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of normalised images, shape (n, channels, size, size), one after another."""
        return np.array([self._one(image) for image in images])

    def batch_logits(self, images: np.ndarray) -> np.ndarray:
        """Return the same by batches, where the server takes them."""
        spec = self.info.batch
        if spec is None:
            raise ServerError(f"{self._url} takes single images only: leave out --batch")

        def send(pixels: List[bytes]) -> List[bytes]:
            message = pack("batch", spec.fingerprint, pixels=pixels)
            answer = self._request("POST", "/v1/batches", message, timeout=1800.0)
            return unpack(answer.content, "answers", spec.fingerprint, "server")["answers"]

        return BatchClient(spec).logits(images, send)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _one(self, image: np.ndarray) -> np.ndarray:
        fingerprint = self.info.latency.fingerprint
        if self._client is None:
            self._client = LatencyClient(self.info.latency)
        encrypted = self._client.encrypt(image)
        for _ in range(_REGISTRATIONS):
            if not self._keys:
                self._register(self._client)
            answer = self._post_image(encrypted)
            if answer is not None:
                break
            self._keys = ""  # the server has forgotten them
        else:
            raise ServerError(
                f"{self._url} forgets keys at once: it serves too many clients, try again later"
            )
        return self._client.decrypt(unpack(answer, "answer", fingerprint, "server")["answer"])

    def _register(self, client: LatencyClient) -> None:
        fingerprint = self.info.latency.fingerprint
        galois, relin = client.evaluation_keys()
        answer = self._request("POST", "/v1/keys", pack("keys", fingerprint, galois=galois, relin=relin))
        self._keys = unpack(answer.content, "registered", fingerprint, "server")["keys"]

    def _post_image(self, encrypted: List[bytes]) -> Optional[bytes]:
        message = pack("image", self.info.latency.fingerprint, keys=self._keys, image=encrypted)
        answer = self._request("POST", "/v1/images", message, forgetful=True)
        return None if answer.status_code == 404 else answer.content

    def _request(
        self,
        method: str,
        path: str,
        content: Optional[bytes] = None,
        *,
        forgetful: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Send a request, again where the server is busy; with ``forgetful`` a 404 is returned."""
        extra: Dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        for wait in (*_WAIT, None):
            try:
                answer = self._http.request(
                    method, self._url + path, content=content, headers={"Content-Type": MEDIA_TYPE}, **extra
                )
            except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
                raise ServerError(
                    f"{self._url} cannot be reached{self._way()}: {error or type(error).__name__}"
                    f"{self._scheme_hint(error)}"
                ) from error
            if answer.status_code != 503 or wait is None:
                break
            time.sleep(wait)
        if answer.status_code == 200 or (forgetful and answer.status_code == 404):
            return answer
        try:
            reason = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            reason = answer.reason_phrase
        raise ServerError(f"{self._url}{path} refused ({answer.status_code}): {reason}")

    def _way(self) -> str:
        return f" through the proxy {self._proxy} that the environment names" if self._proxy else ""

    def _scheme_hint(self, error: Exception) -> str:
        """Return what to try where one side speaks TLS and the other does not."""
        secure = self._url.startswith("https:")
        if secure and "WRONG_VERSION_NUMBER" in str(error):
            return "; it speaks no TLS, try http://"
        if not secure and isinstance(error, self._httpx.RemoteProtocolError):
            return "; does it speak TLS? try https://"
        return ""


def proxy_of(url: str) -> Optional[str]:
    """Return the proxy that the environment names for ``url``, if any; this machine needs none."""
    try:
        found = urlsplit(url)
        host = found.hostname or ""
    except ValueError:  # no address: who asks for it will say so
        return None
    if host == "localhost" or host.endswith(".localhost") or _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(found.scheme) or proxies.get("all")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
