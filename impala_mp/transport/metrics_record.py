"""Row of named numbers that one process publishes and another reads, never mixed."""

from typing import Any

import numpy as np

from impala_mp.transport import parameter_store


class Record:
    """float64 values by name, in a small parameter store. Picklable to a child."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._attach(names, parameter_store.ParameterStore(8 * len(names)))

    def _attach(
        self, names: tuple[str, ...], store: parameter_store.ParameterStore
    ) -> None:
        self._names, self._store = names, store
        self._values = np.empty(len(names))
        self._version = 0

    def write(self, values: dict[str, float]) -> None:
        """Publishes all values together; a missing one reads as NaN.

        Raises:
          KeyError: a name is not in this record.
        """
        unknown = values.keys() - set(self._names)
        if unknown:
            raise KeyError(f"not in this record: {sorted(unknown)}")
        for i, name in enumerate(self._names):
            self._values[i] = values.get(name, np.nan)
        self._store.publish(self._values.view(np.uint8))

    def read(self) -> dict[str, float] | None:
        """Returns the newest values, or None if they have been read already."""
        buffer = self._values.view(np.uint8)
        version = self._store.fetch(buffer, newer_than=self._version)
        if version <= 0:
            return None
        self._version = version
        return dict(zip(self._names, self._values.tolist(), strict=True))

    def close(self) -> None:
        self._store.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._names, self._store)


def _attach(names: tuple[str, ...], store: parameter_store.ParameterStore) -> Record:
    record = Record.__new__(Record)
    record._attach(names, store)
    return record
