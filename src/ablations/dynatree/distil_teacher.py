"""Job: the target's own text and last states, for a draft to be distilled from.

Greedy agreement with the target is what makes a draft fast, so the target writes most of the text itself:
it continues the beginnings of training documents, and answers questions that it made up as the user of
its own chat template (Magpie, arXiv 2406.08464). States are kept once, for all drafts to be trained on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ablations.dynatree.distilling.model import normalised
from ablations.dynatree.distilling.questions import LONGEST_QUESTION, Question, chat_frame
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus
from ablations.lm.device import configure
from ablations.lm.finite import finite_logits, require_finite
from ablations.lm.layered import LayeredLM
from ablations.lm.packing import pack_linears
from ablations.lm.tokenizer import start_of_text
from ablations.study.artefact import new_artefact
from ablations.study.contracts.dynatree import TeacherSpec
from ablations.study.errors import UserError
from ablations.study.job import Run, main

TEACHER_FILE = "teacher.safetensors"


class Teacher:
    """The target, writing batches of sequences of equal length.

    Args:
        target: The model.
        spec: Lengths, batch and seed.
    """

    def __init__(self, target: LayeredLM, spec: TeacherSpec) -> None:
        self._target = target
        self._length = spec.prompt_tokens + spec.new_tokens
        self._generator = torch.Generator(target.device).manual_seed(spec.seed)
        self._eos = torch.tensor(sorted(target.eos_ids), device=target.device)
        # The end of a sequence is looked for afterwards: rows of one batch go on to the same length.
        target.model.generation_config = GenerationConfig()

    def continue_texts(self, prompts: Tensor) -> dict[str, Tensor]:
        """Continue ``[batch, prompt]`` int64 greedily; returns a batch as `_finished` does."""
        ids, states = self._generate(prompts, [])
        return self._finished(ids, states, torch.full_like(ids[:, 0], prompts.shape[1]))

    def answer_questions(self, opening: Tensor, closing: Tensor, batch: int) -> dict[str, Tensor]:
        """Make up questions and answer them greedily; returns a batch as `_finished` does.

        Raises:
            UserError: sequences too short for the longest question and an answer.
        """
        framed = len(opening) + LONGEST_QUESTION + len(closing)
        if self._length <= framed:
            raise UserError(
                f"teacher.new_tokens: {self._length} tokens in all leave no room for an answer after a chat"
                f" template and question of up to {framed}; raise it or set 'questions' to 0"
            )
        question = Question(closing, len(opening), batch, self._generator)
        ids, states = self._generate(opening.expand(batch, -1), [question])
        return self._finished(ids, states, question.answers)

    def _generate(self, prompts: Tensor, processors: list[LogitsProcessor]) -> tuple[Tensor, Tensor]:
        config = GenerationConfig(
            do_sample=False,
            use_cache=True,
            max_new_tokens=self._length - prompts.shape[1],
            cache_implementation="static",
            disable_compile=True,
            pad_token_id=0,
        )
        finite = finite_logits([self._target.lm_head], "the target's logits", self._target.dtype)
        with _watched_states(self._target) as seen, finite:
            ids = self._target.model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
            )
        # One state for each token but the last.
        return ids, torch.cat(seen, dim=1)

    def _finished(self, ids: Tensor, states: Tensor, starts: Tensor) -> dict[str, Tensor]:
        """A batch, on the CPU.

        Returns:
            `ids` ``[batch, length]`` int32; `states` ``[batch, length - 1, hidden]`` bfloat16, normalised;
            `starts` and `ends` ``[batch]`` int32: the target wrote the tokens from `starts` to before `ends`
            greedily, an end of sequence included.
        """
        places = torch.arange(ids.shape[1], device=ids.device)
        over = torch.isin(ids, self._eos) & (places >= starts[:, None])
        ends = torch.where(over.any(dim=1), over.int().argmax(dim=1) + 1, ids.shape[1])
        batch = {"ids": ids.int(), "states": states, "starts": starts.int(), "ends": ends.int()}
        return {name: tensor.cpu() for name, tensor in batch.items()}


@contextmanager
def _watched_states(target: LayeredLM) -> Iterator[list[Tensor]]:
    """Collect what goes into the final norm, normalised, from every forward within the block."""
    seen: list[Tensor] = []

    def watch(norm: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(normalised(norm, inputs[0].float()).bfloat16())

    handle = target.norm.register_forward_pre_hook(watch)
    try:
        yield seen
    finally:
        handle.remove()


def draw_windows(documents: list[Tensor], count: int, tokens: int, seed: int) -> Tensor:
    """`count` windows ``[count, tokens]`` int64 at random places, one per document and then again.

    Raises:
        UserError: no document is long enough.
    """
    long = [ids for ids in documents if len(ids) >= tokens]
    if count and not long:
        raise UserError(
            f"teacher.prompt_tokens: no training document has {tokens} tokens; lower it or use a larger text"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(long), generator=generator).tolist()
    windows = []
    for index in islice(cycle(order), count):
        start = int(torch.randint(len(long[index]) - tokens + 1, (1,), generator=generator))
        windows.append(long[index][start : start + tokens])
    return torch.stack(windows) if windows else torch.empty(0, tokens, dtype=torch.int64)


@torch.inference_mode()
def run(run: Run[TeacherSpec]) -> None:
    """Let the target write, and keep tokens, states and token counts.

    Raises:
        UserError: bad input, nothing to write, texts too short, more tokens than the target has positions, or
            questions without a chat template.
    """
    spec = run.spec
    if not spec.texts + spec.questions:
        raise UserError("teacher.texts: the target has nothing to write; raise it or 'questions'")
    device = configure(spec.compute)
    model = run.job.path("model")
    tokenizer = load_tokenizer(model)
    training = [document.text for document in read_corpus(run.job.path("text")) if document.split == "train"]
    documents = [
        torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False).input_ids, dtype=torch.int64)
        for text in tqdm(training, desc="tokenise", mininterval=2)
    ]
    start = torch.tensor(start_of_text(tokenizer), dtype=torch.int64)
    windows = draw_windows(documents, spec.texts, spec.prompt_tokens - len(start), spec.seed)
    # As prompts do when a draft is used, though most of these begin within a document.
    windows = torch.cat([start.expand(len(windows), -1), windows], dim=1)
    frame = chat_frame(tokenizer) if spec.questions else ([], [])
    opening, closing = (torch.tensor(part, device=device) for part in frame)
    target = load_model(model, spec.compute, device)
    target.require_positions(spec.prompt_tokens + spec.new_tokens, "teacher.new_tokens")
    teacher = Teacher(target, spec)
    pack_linears(target)
    batches = []
    with tqdm(total=spec.texts + spec.questions, desc="teacher", mininterval=2) as bar:
        for prompts in windows.split(spec.batch) if len(windows) else ():
            batches.append(teacher.continue_texts(prompts.to(device)))
            bar.update(len(prompts))
        for first in range(0, spec.questions, spec.batch):
            rows = min(spec.batch, spec.questions - first)
            batches.append(teacher.answer_questions(opening, closing, rows))
            bar.update(rows)
    made = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    require_finite(bool(made["states"].isfinite().all()), "the target's last states", target.dtype)
    texts = torch.cat([*documents, made["ids"].flatten().long()])
    made["counts"] = texts.bincount(minlength=target.lm_head.out_features).int()
    facts = {
        "sequences": len(made["ids"]),
        "tokens": made["ids"].numel(),
        "written": int((made["ends"] - made["starts"]).sum()),
    }
    with new_artefact(run, facts) as folder:
        save_file(made, folder / TEACHER_FILE)


if __name__ == "__main__":
    main("ablations.dynatree.distil_teacher", TeacherSpec, run, "Let the target write text to learn from.")
