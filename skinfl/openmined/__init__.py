"""All that rests on OpenMined's libraries: PySyft's virtual workers, its sharing, and SyMPC's."""
