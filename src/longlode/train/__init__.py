"""train: the training loop, its recipe, its optimizer and its checkpoints.

May import core, ops, mixers, models, torch; not corpus, mining or packing: data arrives as an
iterator of `core.batch.Batch`.
Start reading: `loop.py`; then `recipe.py` (settings of a run) and `checkpoint.py` (state saved for resuming).
"""

from longlode.core.callable_packages import make_callable
from longlode.train.build import build_model
from longlode.train.loop import TrainSummary, train
from longlode.train.recipe import Recipe

__all__ = ["Recipe", "TrainSummary", "build_model", "train"]

make_callable(__name__, "longlode.api.training:train_run")  # longlode.train(...)
