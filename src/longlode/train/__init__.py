"""train: the training loop, its recipe, its optimizer and its checkpoints.

May import core, ops, mixers, models, torch; not corpus, mining or packing: data arrives as an
iterator of `core.batch.Batch`.
Start reading: `loop.py`; then `recipe.py` (what a run may say) and `checkpoint.py` (what survives a kill).
"""

from longlode.core.callable_rooms import make_callable
from longlode.train.build import build_model
from longlode.train.loop import TrainSummary, train
from longlode.train.recipe import Recipe

__all__ = ["Recipe", "TrainSummary", "build_model", "train"]

make_callable(__name__, "longlode.api.training:train_run")  # longlode.train(...)
