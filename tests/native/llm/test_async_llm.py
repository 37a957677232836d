"""AsyncLLM: the same texts in an event loop that nothing holds up, and tasks that come and go as they like."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quickbrown import AsyncLLM, FinishReason, GenerationError, TooLong, UnknownOption
from tiny_llm import (
    CANCELLED,
    CHAT,
    LENGTH,
    NEW,
    SAMPLED,
    alone,
    begins,
    held,
    ids,
    poison_of,
    poisoned,
    rests,
    running,
    said,
    slowly,
)

LONG = {**SAMPLED, "max_new_tokens": 2000}


@pytest.fixture
def llm(llm, caplog):
    """As elsewhere, and nothing may have been complained of in the engine's thread."""
    yield llm
    assert rests(llm)
    records = [record for phase in ("call", "teardown") for record in caplog.get_records(phase)]
    assert [record.getMessage() for record in records if record.levelname in ("ERROR", "WARNING")] == []


@pytest.fixture
def tasks(llm):
    return AsyncLLM(llm)


def run(main):
    """Whatever goes wrong, it does not take for ever."""
    return asyncio.run(asyncio.wait_for(main, 60))


async def pieces_of(stream, read):
    async for piece in stream:
        read.append(piece)


class TestSame:
    """What is awaited is what `LLM` gives: same shapes, seeds, pieces."""

    def test_generate_and_chat(self, llm, tasks):
        async def main():
            return [
                await tasks.generate("Once", **SAMPLED, seed=1),
                *await tasks.generate(["Once", ids(70), CHAT], **SAMPLED, seed=1),
                *await tasks.generate("Once", n=3, **SAMPLED, seed=1),
                *[c for row in await tasks.generate(["Once", "Twice"], n=2, **SAMPLED, seed=1) for c in row],
                await tasks.chat(CHAT, **SAMPLED, seed=1),
                *await tasks.chat([CHAT, CHAT], **SAMPLED, seed=1),
                *await tasks.chat(CHAT, n=1, **SAMPLED, seed=1),
            ]

        expected = [
            llm.generate("Once", **SAMPLED, seed=1),
            *llm.generate(["Once", ids(70), CHAT], **SAMPLED, seed=1),
            *llm.generate("Once", n=3, **SAMPLED, seed=1),
            *[c for row in llm.generate(["Once", "Twice"], n=2, **SAMPLED, seed=1) for c in row],
            llm.chat(CHAT, **SAMPLED, seed=1),
            *llm.chat([CHAT, CHAT], **SAMPLED, seed=1),
            *llm.chat(CHAT, n=1, **SAMPLED, seed=1),
        ]
        assert [said(c) for c in run(main())] == [said(c) for c in expected]

    @pytest.mark.parametrize("stop", [(), ("e", "\x10")])
    def test_streams(self, llm, tasks, stop):
        options = {**SAMPLED, "max_new_tokens": 150, "stop": stop, "seed": [1]}

        async def main():
            stream = tasks.stream("Once upon a time", **options)
            pieces = [piece async for piece in stream]
            return pieces, stream.completion, await tasks.stream_chat(CHAT, **options).read()

        pieces, completion, answer = run(main())
        expected = alone(llm, "Once upon a time", **options)
        assert pieces == list(llm.stream("Once upon a time", **options))
        assert len(pieces) > 3
        assert "".join(pieces) == expected.text
        assert (said(completion), said(answer)) == (expected, alone(llm, CHAT, **options))

    def test_a_stream_of_several(self, llm, tasks):
        """Pieces added up by row, prompt * n + sample: six texts, all different."""
        prompts = ["Once", ids(70), "Twice"]

        async def main():
            stream = tasks.stream_batch(prompts, n=2, **SAMPLED, seed=8)
            texts = [""] * 6
            async for row, piece in stream:
                texts[row] += piece
            return texts, stream.completions, await tasks.stream_batch(prompts, n=2, **SAMPLED, seed=8).read()

        texts, *completions = run(main())
        expected = [c for row in llm.generate(prompts, n=2, **SAMPLED, seed=8) for c in row]
        assert texts == [c.text for c in expected]
        assert len(set(texts)) == 6
        for rows in completions:
            assert [said(c) for c in rows] == [said(c) for c in expected]

    def test_loading(self, llm, path):
        """With what `LLM` takes, and while the loop goes on; or around a model that is there."""

        async def main():
            own = await AsyncLLM.load(path, threads=1, memory="1MB")
            assert (own.llm.runner.pool.threads, own.llm.runner.room()) == (1, 1_000_000 // 16384)
            completion = await own.generate("Once", **SAMPLED, seed=1)
            own.close()
            with pytest.raises(RuntimeError, match="closed; load it again"):
                await own.generate("Once")
            return completion

        assert said(run(main())) == said(llm.generate("Once", **SAMPLED, seed=1))
        own = AsyncLLM(path, threads=1)
        assert own.llm.runner.pool.threads == 1
        own.close()

    def test_what_is_refused(self, llm, tasks, path):
        with pytest.raises(TypeError, match=r"^threads belongs to loading a model, but this one is loaded$"):
            AsyncLLM(llm, threads=1)

        async def main():
            with pytest.raises(UnknownOption, match="temprature"):
                await tasks.generate("Once", temprature=1)
            with pytest.raises(UnknownOption, match="temprature"):
                tasks.stream("Once", temprature=1)
            with pytest.raises(ValueError, match="n must be"):
                await tasks.generate("Once", n=0)
            with pytest.raises(TooLong):
                await tasks.chat([{"role": "user", "content": "a" * 3000}])
            with pytest.raises(ValueError, match="dtype must be"):
                await AsyncLLM.load(path, dtype="int8")

        run(main())


class TestCompany:
    def test_twenty_tasks_with_different_options(self, llm, tasks):
        """Each gets what it gets alone; all texts are different."""
        calls = [
            (
                ids(1 + 17 * i, seed=i),
                {
                    "max_new_tokens": 20 + i,
                    "temperature": (0, 0.2, 0.3)[i % 3],
                    "top_k": (0, 50)[i % 2],
                    "top_p": (1, 0.9)[i // 2 % 2],
                    "seed": [i],
                    "logprobs": i % 5 == 0,
                    "ignore_eos": True,
                },
            )
            for i in range(20)
        ]

        async def main():
            return await asyncio.gather(*(tasks.generate([prompt], **options) for prompt, options in calls))

        rows = [said(c) for [c] in run(main())]
        assert rows == [alone(llm, prompt, **options) for prompt, options in calls]
        assert len({c.tokens for c in rows}) == 20

    def test_threads_and_tasks_together(self, llm, tasks):
        """Four threads wait and six tasks await on one model at the same time, the tasks in two loops."""
        expected = [alone(llm, "Once", **SAMPLED, seed=[i]) for i in range(10)]

        async def main(seeds):
            return await asyncio.gather(*(tasks.generate("Once", **SAMPLED, seed=[i]) for i in seeds))

        with ThreadPoolExecutor(6) as threads, held(llm) as steps:
            loops = [threads.submit(run, main(seeds)) for seeds in (range(4, 7), range(7, 10))]
            alones = [threads.submit(alone, llm, "Once", **SAMPLED, seed=[i]) for i in range(4)]
            steps.allow()
            written = [thread.result() for thread in alones] + [said(c) for loop in loops for c in loop.result()]
        assert written == expected

    def test_a_slow_consumer_holds_up_nobody(self, llm, tasks):
        """It sleeps after every piece; another's texts are all there before it has read five."""
        expected = alone(llm, "Once", **SAMPLED, seed=[1])

        async def slow():
            stream = tasks.stream("Once", **SAMPLED, seed=[1])
            async for piece in stream:
                read.append(piece)
                await asyncio.sleep(0.01)
                if len(read) == 4:
                    await asyncio.wait_for(other, 20)
            return said(stream.completion)

        async def main():
            nonlocal other
            other = asyncio.create_task(tasks.generate(["Twice"] * 3, **SAMPLED))
            return await slow()

        read, other = [], None
        assert run(main()) == expected
        assert "".join(read) == expected.text

    def test_a_row_that_fails_is_heard_of_by_its_task_alone(self, llm, tasks):
        """Awaited, and read piece by piece; the others of the same steps get their texts."""
        guilty, other = (alone(llm, prompt, **SAMPLED, seed=[1]) for prompt in ("Once", "Twice"))
        at, poison = poison_of(guilty, other)

        async def main():
            stream = tasks.stream("Once", **SAMPLED, seed=[1])
            waiting = [tasks.generate(prompt, **SAMPLED, seed=[1]) for prompt in ("Once", "Twice")]
            failed, whole = await asyncio.gather(*waiting, return_exceptions=True)
            read = []
            with pytest.raises(GenerationError, match=r"^LookupError: no idea$"):
                await pieces_of(stream, read)
            return failed, whole, "".join(read)

        with running(llm, poisoned(poison)):
            failed, whole, read = run(main())
        assert said(whole) == other
        assert isinstance(failed, GenerationError)
        assert failed.completions[0].tokens == guilty.tokens[: at + 1]
        assert read == failed.completions[0].text


async def generating(tasks):
    await tasks.generate(["Once", "Twice"], n=2, **LONG)


async def iterating(tasks):
    async for _ in tasks.stream("Once", **LONG):
        pass


async def iterating_several(tasks):
    async for _ in tasks.stream_batch(["Once", "Twice"], n=2, **LONG):
        pass


async def reading(tasks):
    tasks.kept = tasks.stream("Once", **LONG)  # so that it does not end by being dropped
    await tasks.kept.read()


class TestLifetime:
    @pytest.mark.parametrize("work", [generating, iterating, iterating_several, reading])
    def test_a_task_that_is_cancelled_ends_its_texts_and_no_others(self, llm, tasks, work):
        """During the eleventh of 2,000 steps: the twelfth runs the other text alone, which is whole."""
        expected = alone(llm, "Thrice", **SAMPLED, seed=[1])
        sizes = []

        def note(step, batch):
            sizes.append(len(batch.starts) - 1)
            return step()

        async def main():
            other = asyncio.create_task(tasks.generate("Thrice", **SAMPLED, seed=[1]))
            victim = asyncio.create_task(work(tasks))
            await asyncio.sleep(0)
            await asyncio.to_thread(steps.let, 10)
            victim.cancel()
            await asyncio.wait([victim])
            assert victim.cancelled()
            del victim  # before Python 3.11 it keeps the frame, and with that the stream, that was cancelled
            steps.allow()
            return await other

        with running(llm, note), held(llm) as steps:
            assert said(run(main())) == expected
            assert rests(llm)
        assert sizes[9] > 1
        assert sizes[10] == sizes[9], "the step that was held runs as it was made"
        assert set(sizes[11:]) == {1}
        assert len(sizes) <= NEW + 2

    def test_closing_a_stream(self, llm, tasks):
        whole = alone(llm, "Once", **SAMPLED, seed=[1])

        async def main():
            with held(llm) as steps:
                stream = tasks.stream("Once", **SAMPLED, seed=[1])
                await asyncio.to_thread(steps.let, 10)
                stream.close()
            return "".join([piece async for piece in stream]), stream.completion

        text, completion = run(main())
        assert (completion.finish, len(completion.tokens)) == (CANCELLED, 10)
        assert begins(completion, whole)
        assert text == completion.text

    def test_a_stream_that_is_dropped_is_not_written_on(self, llm, tasks):
        async def main():
            with held(llm) as steps:
                stream = tasks.stream("Once", **LONG)
                await asyncio.to_thread(steps.let, 10)
                await anext(stream)
                del stream
                gc.collect()
                steps.allow()
                assert await asyncio.to_thread(rests, llm)
                return steps.begun

        assert run(main()) == 11

    def test_the_loop_goes_on_while_texts_are_written(self, llm, tasks):
        """Twenty steps of 50 ms, one second: a ticker hears each tick; one that were held up would miss most of it,
        wherever the loop waited for a step, a text, or a lock that is held for so long."""

        async def tick():
            while True:
                ticks.append(time.perf_counter())
                await asyncio.sleep(0.01)

        async def main():
            ticker = asyncio.create_task(tick())
            await asyncio.sleep(0)
            options = {**SAMPLED, "max_new_tokens": 20}
            stream = tasks.stream("Once", **options)
            await asyncio.gather(stream.read(), *(tasks.generate("Once", **options) for _ in range(3)))
            ticker.cancel()

        ticks = []
        with running(llm, slowly(0.05)):
            run(main())
        gaps = [after - before for before, after in itertools.pairwise(ticks)]
        assert ticks[-1] - ticks[0] > 0.9
        assert max(gaps) < 0.5
        assert len(gaps) > 20

    def test_a_loop_may_end_in_the_middle_of_a_text(self, llm, tasks):
        """With streams and a call of it still there: nobody can be told any more, which is no error of anybody's.
        What was left is not written on, and later calls are what they ever were."""

        async def main():
            waiting = asyncio.ensure_future(tasks.generate("Twice", **LONG))
            await asyncio.sleep(0)
            streams = tasks.stream("Once", **LONG), tasks.stream_batch(["Once", "Twice"], n=2, **LONG)
            await asyncio.to_thread(steps.let, 10)
            return waiting, streams

        expected = alone(llm, "Once", **SAMPLED, seed=[1])
        with held(llm) as steps:
            waiting, streams = run(main())
            assert waiting.cancelled()
            assert streams[0].texts[0].finish is None
            steps.allow()
            assert rests(llm)
            assert steps.begun < 20
        assert said(run(tasks.generate("Once", **SAMPLED, seed=[1]))) == expected
        assert alone(llm, "Once", **SAMPLED, seed=[1]) == expected
        for text in (text for stream in streams for text in stream.texts):
            assert text.completion.finish.reason in (FinishReason.ERROR, FinishReason.CANCELLED)

    def test_a_stream_may_be_closed_after_its_loop(self, llm, tasks):
        """That ends its text, whether or not anybody can be told."""

        async def main():
            stream = tasks.stream("Once", **LONG)
            await asyncio.to_thread(steps.let, 10)
            return stream

        with held(llm) as steps:
            stream = run(main())
            stream.close()
            assert stream.completion.finish == CANCELLED
            steps.allow()
            assert rests(llm)
            assert steps.begun < 20

    def test_one_loop_after_another(self, llm, tasks):
        """Nothing is kept of a loop that has ended."""
        texts = [run(tasks.generate("Once", **SAMPLED, seed=1)) for _ in range(3)]
        assert len({said(c) for c in texts}) == 1
        assert texts[0].finish == LENGTH
