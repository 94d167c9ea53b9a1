"""The generation engine: request → cache → step → result, in token ids."""

from nextword.generation.engine import Engine
from nextword.generation.generation import Generation
from nextword.generation.request import FinishReason, GeneratedToken, Request, Statistics

__all__ = ["Engine", "FinishReason", "GeneratedToken", "Generation", "Request", "Statistics"]
