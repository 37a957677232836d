"""Writing with guesses against writing without: text that copies its prompt, and text that does not.

    python benchmarks/speculation.py [--model smollm2-135m] [--draft NAME] [--prompts code copy plain]
                                      [--guesses 10] [--new 200] [--reps 5] [--texts N]

code      a chat model is asked to repeat some code with one name changed
copy      the same code twice, and the beginning of it a third time
plain     a story, drawn at temperature 1, in which nothing is to be copied
tps       tokens a second after the first, the median of --reps, plain and guessed in turns, either first
ratio     of guessed to plain: the median of the ratios of pairs
guessed, accepted  guesses in one text, and how many of them came true

With --texts the plain story is written so many times instead, each time another one: plain, guessed, and plain again,
in an order drawn for each, so that no way has a place of its own in what the machine does. Printed as quartiles:

ratio     of guessed to plain
again     of plain again to plain, in which there is nothing but noise: ratio is to be seen beside it
"""

from __future__ import annotations

import argparse
import json
import random
import statistics

from quickbrown import LLM
from quickbrown.weights.kept import finish

CODE = """def total_price(items, tax_rate):
    subtotal = 0
    for item in items:
        subtotal += item.price * item.quantity
    tax = subtotal * tax_rate
    return subtotal + tax


def apply_discount(price, discount):
    if discount < 0 or discount > 1:
        raise ValueError("discount must be between 0 and 1")
    return price * (1 - discount)


def print_receipt(items, tax_rate, discount):
    total = total_price(items, tax_rate)
    total = apply_discount(total, discount)
    for item in items:
        print(f"{item.name}: {item.price} x {item.quantity}")
    print(f"Total: {total:.2f}")
"""
STORY = "Once upon a time, in a small town by the sea, there lived an old clockmaker who"


def prompts(llm: LLM) -> dict[str, list[int]]:
    """Token ids of each kind of prompt; of a model without a chat template, no question."""
    found = {
        "copy": llm.tokenizer.encode(
            f"{CODE}\n\n# The same again\n\n{CODE}\n\n# The same again\n\n{CODE[:40]}", bos=True
        ),
        "plain": llm.tokenizer.encode(STORY, bos=True),
    }
    if llm.template is None:
        return found
    asked = f"Repeat this code, but rename the function total_price to full_price:\n\n```python\n{CODE}```"
    return {"code": llm.conversation([{"role": "user", "content": asked}]), **found}


def quartiles(values: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(values, method="inclusive")]


def stories(llm: LLM, prompt: list[int], way: str, its: LLM, options: dict[str, int], texts: int, new: int) -> None:
    """Measure stories of different seeds, each beside a control, and print what came of it."""
    ratios: dict[str, list[float]] = {"ratio": [], "again": []}
    dice = random.Random(0)
    guessed = accepted = 0
    for seed in range(texts + 1):  # the first is not counted
        rates, written = {}, {}
        turn = [("plain", llm, {}), (way, its, options), ("again", llm, {})]
        for name, one, chosen in dice.sample(turn, 3):
            drawn = {"temperature": 1.0, "seed": seed, "max_new_tokens": new, "ignore_eos": True}
            stream = one.stream_batch([prompt], **drawn, **chosen)
            [written[name]] = stream.read()
            rates[name] = (new - 1) / (stream.seconds - stream.first_token_seconds)
        if not written["plain"].tokens == written[way].tokens == written["again"].tokens:
            raise AssertionError("guesses changed the text")
        if seed == 0:
            continue
        ratios["ratio"].append(rates[way] / rates["plain"])
        ratios["again"].append(rates["again"] / rates["plain"])
        guessed += written[way].guessed_tokens
        accepted += written[way].accepted_tokens
    line = {"prompt": "plain", "way": way, "texts": texts, "guessed": guessed, "accepted": accepted}
    print(json.dumps(line | {name: quartiles(values) for name, values in ratios.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--draft")
    parser.add_argument("--prompts", nargs="+", choices=["code", "copy", "plain"], default=["code", "copy", "plain"])
    for name, value in (("guesses", 10), ("new", 200), ("threads", 2), ("reps", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--texts", type=int)
    a = parser.parse_args()
    if a.texts is not None and a.texts < 2:
        parser.error("--texts: quartiles need two texts and more")
    llm = LLM(a.model, threads=a.threads)
    ways = {"lookup": (llm, {"prompt_lookup_num_tokens": a.guesses})}
    if a.draft is not None:
        ways["draft"] = (LLM(a.model, threads=a.threads, draft=a.draft), {})
    finish()  # keeping packed weights would be measured too
    if a.texts is not None:
        for way, (its, options) in ways.items():
            stories(llm, prompts(llm)["plain"], way, its, options, a.texts, a.new)
        return
    for kind, prompt in prompts(llm).items():
        if kind not in a.prompts:
            continue
        for way, (its, options) in ways.items():
            rates: dict[str, list[float]] = {"plain": [], way: []}
            texts = {}
            for rep in range(a.reps + 1):  # the first is not counted: it warms up, and learns what steps cost
                turn = [("plain", llm, {}), (way, its, options)]
                for name, one, chosen in turn if rep % 2 else reversed(turn):
                    drawn = {"temperature": 1.0, "seed": 1} if kind == "plain" else {}
                    stream = one.stream_batch([prompt], max_new_tokens=a.new, ignore_eos=True, **drawn, **chosen)
                    [texts[name]] = stream.read()
                    rates[name].append((a.new - 1) / (stream.seconds - stream.first_token_seconds))
            if texts["plain"].tokens != texts[way].tokens:
                raise AssertionError("guesses changed the text")
            pairs = zip(rates[way][1:], rates["plain"][1:], strict=True)
            line = {
                "prompt": kind,
                "way": way,
                "plain_tps": round(statistics.median(rates["plain"][1:]), 1),
                "tps": round(statistics.median(rates[way][1:]), 1),
                "ratio": round(statistics.median(guessed / plain for guessed, plain in pairs), 3),
                "guessed": texts[way].guessed_tokens,
                "accepted": texts[way].accepted_tokens,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
