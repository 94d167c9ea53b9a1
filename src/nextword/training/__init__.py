"""What training needs between raw samples and Keras' own loop."""

from nextword.training.input_pipeline import InputPipeline, split_samples, unpack_samples
from nextword.training.weights import weights_kept

__all__ = ["InputPipeline", "split_samples", "unpack_samples", "weights_kept"]
