"""The packed batches the references are computed on."""

import itertools
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

IGNORE = -1

# Two prompts in the style of the model's training text and one film review it never saw.
GLASSLLM_TEXTS = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having "
    "nothing to do: once or twice she had peeped into the book",
    "Effective but too tepid biopic",
    "The Queen turned crimson with fury, and said to the White Rabbit, before she could stop",
)


@dataclass(frozen=True)
class Batch:
    """Packed documents: ids, the id to predict at each position or IGNORE, and the boundaries."""

    tokens: torch.Tensor
    targets: torch.Tensor
    cu_seqlens: list[int]

    def documents(self) -> list[torch.Tensor]:
        """The ids of each document."""
        return [self.tokens[a:b] for a, b in itertools.pairwise(self.cu_seqlens)]


def pack(documents: list[list[int]], ignored: set[int]) -> Batch:
    """Joins documents; the last token of each predicts nothing, nor do the `ignored` positions."""
    tokens = list(itertools.chain.from_iterable(documents))
    cu_seqlens = [0, *itertools.accumulate(map(len, documents))]
    ends = {end - 1 for end in cu_seqlens[1:]}
    targets = [IGNORE if i in ends or i in ignored else tokens[i + 1] for i in range(len(tokens))]
    return Batch(torch.tensor(tokens), torch.tensor(targets), cu_seqlens)


def random_batch(vocab_size: int) -> Batch:
    """Documents of 6, 1, 37, 2 and 11 tokens; a prompt and two scattered positions are ignored."""
    generator = torch.Generator().manual_seed(1865)
    lengths = (6, 1, 37, 2, 11)
    documents = [
        torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths
    ]
    return pack(documents, ignored={*range(7, 14), 30, 48})


def text_batch(tokenizer: Tokenizer) -> Batch:
    """Three texts of real words, the first eight tokens of the last one an untrained prompt."""
    documents = [tokenizer.encode(text).ids for text in GLASSLLM_TEXTS]
    prompt = sum(map(len, documents[:2]))
    return pack(documents, ignored=set(range(prompt, prompt + 7)))
