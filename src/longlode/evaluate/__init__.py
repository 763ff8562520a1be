"""evaluate: measure how well a model uses its context. Tasks at any length, scores with intervals, paired comparison.

May import: core, corpus, models and what models may import; torch.
Start reading: `tasks/base.py` (the interface of tasks), then `run.py`. Works for any Hugging Face causal LM.
"""

from longlode.core.callable_packages import make_callable
from longlode.evaluate.compare import compare
from longlode.evaluate.effective_length import EffectiveLength, effective_length
from longlode.evaluate.harness import run_harness
from longlode.evaluate.lm_eval_tasks import write_lm_eval_tasks
from longlode.evaluate.run import evaluate
from longlode.evaluate.tasks import TASKS, Curve, Example, Metric, Scores, Task
from longlode.evaluate.traceback import Attribution, trace_answer

__all__ = [
    "TASKS",
    "Attribution",
    "Curve",
    "EffectiveLength",
    "Example",
    "Metric",
    "Scores",
    "Task",
    "compare",
    "effective_length",
    "evaluate",
    "run_harness",
    "trace_answer",
    "write_lm_eval_tasks",
]

make_callable(__name__, "longlode.evaluate.by_name:evaluate_model")  # longlode.evaluate(...)
