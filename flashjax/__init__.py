"""flashjax: few-step distillation of image models, in JAX."""

__version__ = "0.1.0"
