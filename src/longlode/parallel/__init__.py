"""parallel: sequences longer than one device, cut into pieces on several ranks.

Every mixer with a linear state, and softmax attention by several schemes, give on P ranks the loss and the gradients of
one rank. A mixer knows nothing of ranks: it asks the shard in its `SequenceContext` for the inputs before its piece
(`halo`), the state before it (`fold`) and the keys and values before it (`gather`, `attend`).

    plan = SequencePlan.even(num_ranks, tokens.shape, cu_seqlens=cu_seqlens)     who holds what, known to all ranks
    shard = RankShard(plan, GroupTransport(group), attention="ring")             under torchrun, this rank's piece
    inputs = plan.piece(shard.rank).model_inputs(tokens, next_tokens(tokens, cu_seqlens=cu_seqlens))
    model(**inputs, shard=shard).loss.backward()                                 this rank's share of the loss
    sum_gradients(model.parameters(), shard.transport)                           a sum, not a mean

`simulate(num_ranks, work)` runs the same with threads in one process, to debug without torchrun.

May import: core, ops, mixers, models. Start reading: `plan.py` (who holds what), `shard.py` (what a mixer asks for),
`exchange.py` (exchanges with gradients), `transport.py` (process groups, bytes on the wire), `simulate.py`,
`attention/` (one file per scheme), `heads.py` (sequence for heads), `planner.py` (groups that fit the lengths),
`cost_file.py` (measured cost models), `reading.py` (evaluation and prompts), `world.py` (torchrun's processes).
"""

from longlode.parallel.attention import (
    ATTENTION_SCHEMES,
    AttentionScheme,
    AttentionSizes,
    keep_attention_outputs,
)
from longlode.parallel.gradients import sum_gradients
from longlode.parallel.plan import Piece, SequencePlan, next_tokens
from longlode.parallel.shard import RankShard
from longlode.parallel.simulate import ThreadTransport, simulate
from longlode.parallel.transport import GroupTransport, Traffic, Transport

__all__ = [
    "ATTENTION_SCHEMES",
    "AttentionScheme",
    "AttentionSizes",
    "GroupTransport",
    "Piece",
    "RankShard",
    "SequencePlan",
    "ThreadTransport",
    "Traffic",
    "Transport",
    "keep_attention_outputs",
    "next_tokens",
    "simulate",
    "sum_gradients",
]
