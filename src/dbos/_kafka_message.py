"""Names inside stored pickles: values of this class were written with this module path (see `types`)."""

from .types import KafkaMessage

__all__ = ["KafkaMessage"]
