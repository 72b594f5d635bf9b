"""What policies share that take a request's room to its end at admission."""

from schedsim.request import Request
from schedsim.scheduler.step import Step


def tokens_to_limit(request: Request) -> int:
    """The most tokens that `request` may have computed: the newest one needs no slot."""
    return request.prompt_tokens + request.output_limit - 1


def can_reserve(request: Request, tokens: int, step: Step) -> bool:
    """Whether an empty cache has room for `tokens` tokens of arriving `request`; else rejects it.

    An `accept` that answers so keeps a request out which no iteration could admit.
    """
    need = max(step.blocks_for(tokens), step.blocks_to_admit(request, tokens))
    if need <= step.total_blocks:
        return True
    step.reject(
        request,
        f"its prompt and output limit reserve {need} blocks, the cache has {step.total_blocks}; "
        "set --max-output or --max-model-len",
    )
    return False


def fits_budget(request: Request, tokens: int, step: Step) -> bool:
    """Whether one iteration can compute `tokens` tokens of arriving `request`; else rejects it.

    For policies that do not cut prompts.
    """
    if tokens <= step.token_budget:
        return True
    step.reject(
        request,
        f"{tokens} tokens to compute at once exceed the token budget of {step.token_budget}, and "
        "this policy does not chunk",
    )
    return False
