"""Pack documents, train a small DeltaNet for a few steps, and measure its loss by position.

Twenty steps show how the parts fit together, not what the model can do; `recipes/cpu_small.toml` trains for longer.
"""

import sysconfig
from pathlib import Path

import longlode

library = Path(sysconfig.get_path("stdlib"))
longlode.pack([str(path) for path in sorted(library.glob("[a-m]*.py"))[:30]], "shards", length=512)

Path("recipe.toml").write_text(
    """
[model]
mixers = "D*2"
hidden_size = 64
num_heads = 2

[data]
shards = "shards"
length = 512
batch_size = 4
packed = true        # documents in one row do not see each other

[optim]
lr = 4e-3
warmup_steps = 5

[run]
steps = 20
"""
)
longlode.train("recipe.toml", "run")
longlode.evaluate(
    "run",
    "evaluation",
    tasks=["loss_by_position"],
    lengths=[256],
    texts=[str(path) for path in sorted(library.glob("[t-z]*.py"))[:8]],
    num_examples=4,
)
table = longlode.read_result("evaluation").table()
for row in table.select(["bucket_start", "bucket_stop", "nats"]).slice(0, 5).to_pylist():
    print("tokens {bucket_start:3} to {bucket_stop:3} of a document: {nats:.2f} nats per token".format(**row))
