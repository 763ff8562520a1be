"""Cut a packed row of documents over four simulated ranks, and compare loss, gradients and bytes with one rank.

Under torchrun, `GroupTransport()` takes the place of the simulated transport, and each process runs `work` once.
"""

import torch

from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.parallel import RankShard, SequencePlan, Traffic, Transport, next_tokens, simulate

torch.manual_seed(0)
config = LonglodeConfig(vocab_size=256, hidden_size=64, mixers="DS*2", num_heads=4, window=100)
model = LonglodeForCausalLM(config).double().train()
parameters = list(model.parameters())

tokens = torch.randint(256, (1, 1000))
documents = torch.tensor([0, 130, 131, 900, 1000])
labels = next_tokens(tokens, cu_seqlens=documents)
plan = SequencePlan.even(4, tokens.shape, cu_seqlens=documents)


def work(transport: Transport) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], Traffic]:
    """The step of one rank: its share of the loss, and the gradients of that share, what it received."""
    inputs = plan.piece(transport.rank).model_inputs(tokens, labels)
    loss = model(**inputs, shard=RankShard(plan, transport)).loss
    return loss.detach(), torch.autograd.grad(loss, parameters), transport.traffic


whole = model(input_ids=tokens, shift_labels=labels, cu_seqlens=documents).loss
whole_gradients = torch.autograd.grad(whole, parameters)
results = simulate(plan.num_ranks, work)
loss = sum(one for one, *_ in results)
gradients = [sum(parts) for parts in zip(*(grads for _, grads, _ in results), strict=True)]
worst = max(
    float((got - want).norm() / want.norm()) for got, want in zip(gradients, whole_gradients, strict=True)
)
print(f"loss on one rank {whole.item():.12f}, on four {loss.item():.12f} nats per token")
print(f"largest relative difference of a gradient {worst:.1e}")
for rank, (*_, traffic) in enumerate(results):
    print(f"rank {rank} received {traffic.total_bytes:,} bytes: {dict(traffic.num_bytes)}")
