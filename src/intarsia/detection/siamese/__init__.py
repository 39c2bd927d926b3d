"""The Siamese detector (Dou et al. 2024): a text beside what a machine wrote on its topic; and the encoder for single
texts."""

from intarsia.detection.siamese.cosine import frozen_cosine
from intarsia.detection.siamese.encoder import SiameseDetector, fit
from intarsia.detection.siamese.pairs import Pair, make_pairs
from intarsia.detection.siamese.settings import SiameseConfig
from intarsia.detection.topics import by_topic

__all__ = ["Pair", "SiameseConfig", "SiameseDetector", "by_topic", "fit", "frozen_cosine", "make_pairs"]
