"""Guest ABI: input, output and error."""

from observe import script
from probe import ALL, Probe

BIG = 1 << 40


@script(ALL)
def input_reading(t):
    """input_offset, input_length, input_load_*: every byte, and past the end."""

    def steps(p):
        size = yield "input_length"
        offset = yield "input_offset"
        t.see("input_length", size)
        t.see("input_offset is a block", offset >= 16)
        t.see("length(input_offset)", (yield "length", offset))
        t.see("bytes", bytes((yield from p.each("input_load_u8", range(size)))))
        t.see("word", (yield "input_load_u64", 0))
        t.see("unaligned word", (yield "input_load_u64", 3))
        t.see("last word", (yield "input_load_u64", size - 8))
        t.see("u8 past the end", (yield from p.each("input_load_u8", (size, size + 1, BIG, -1))))
        t.see("u64 past the end", (yield from p.each("input_load_u64", (size - 7, size, BIG, -1, -8))))
        t.see("by plain loads", (yield from p.load(offset, size)))

    t.result("run", Probe(t).run(steps, b"input of twenty-four b.."))


@script(ALL)
def empty_input(t):
    """An empty input has length 0, and nothing in it can be read."""

    def steps(p):
        t.see("input_length", (yield "input_length"))
        t.see("u8", (yield "input_load_u8", 0))
        t.see("u64", (yield "input_load_u64", 0))
        block = yield from p.put(b"mine")
        t.see("a block does not become the input", (yield "input_length"))
        yield "output_set", block, 4

    t.result("run", Probe(t).run(steps, b""))


@script(ALL)
def input_set(t):
    """input_set replaces the input; nothing outside of Extism memory can become the input."""

    def steps(p):
        block = yield from p.put(b"0123456789")
        yield "input_set", block + 2, 5
        t.see("input_length", (yield "input_length"))
        t.see("input_offset", (yield "input_offset") - block)
        t.see("bytes", bytes((yield from p.each("input_load_u8", range(5)))))
        t.see("past it", (yield "input_load_u8", 5))
        yield "input_set", 0, 0
        t.see("emptied", (yield "input_length"))
        yield "input_set", block, 0
        t.see("emptied with an offset", (yield "input_length"))

    t.result("run", Probe(t).run(steps, b"the real one"))
    for name, (offset, size) in {"past the end": (64, 1 << 30), "far": (BIG, 4), "wrapping": (-8, 16)}.items():
        def odd(p):
            yield "input_set", offset, size
            t.see(f"{name} continues", (yield "input_length"))

        t.result(name, Probe(t).run(odd, b"the real one"))


@script(ALL)
def free_of_the_input(t):
    """Freeing the input block makes the input empty."""

    def steps(p):
        offset = yield "input_offset"
        yield "free", offset
        t.see("input_length", (yield "input_length"))
        t.see("input_load_u8", (yield "input_load_u8", 0))
        t.see("length", (yield "length", offset))

    t.result("run", Probe(t).run(steps, b"to be freed"))


@script(ALL)
def output(t):
    """output_set, output_offset, output_length: blocks, parts of blocks, none."""
    probe = Probe(t)

    def whole(p):
        block = yield from p.put(b"the output")
        yield "output_set", block, 10
        t.see("output_length", (yield "output_length"))
        t.see("output_offset", (yield "output_offset") == block)

    def part(p):
        block = yield from p.put(b"the output")
        yield "output_set", block + 4, 3

    def twice(p):
        first = yield from p.put(b"first")
        second = yield from p.put(b"second")
        yield "output_set", first, 5
        yield "output_set", second, 6

    def emptied(p):
        block = yield from p.put(b"the output")
        yield "output_set", block, 10
        yield "output_set", block, 0
        t.see("emptied output_length", (yield "output_length"))

    def zero_offset(p):
        yield "output_set", 0, 0
        block = yield from p.put(b"the output")
        yield "output_set", block, 10
        yield "output_set", 0, 5

    def freed(p):
        block = yield from p.put(b"the output")
        yield "output_set", block, 10
        yield "free", block

    def the_input(p):
        yield "output_set", (yield "input_offset"), (yield "input_length")

    def changed_later(p):
        block = yield from p.put(b"the output")
        yield "output_set", block, 10
        yield "store_u8", block, ord("T")

    def longer_than_its_block(p):
        block = yield from p.put(b"ab")
        yield "output_set", block, 6
        t.see("longer output_length", (yield "output_length"))

    def none(p):
        yield "memory_bytes"

    def by_host(p):
        yield "output_set", p.current.put(b"host's block"), 12

    for steps in (whole, part, twice, emptied, freed, the_input, changed_later, none, by_host):
        t.result(steps.__name__, probe.run(steps, b"the input"))
    result = probe.run(longer_than_its_block)
    t.see("longer than its block", [result.code, len(result.output), result.output[:2]])
    t.result("zero_offset", Probe(t).run(zero_offset))


@script(ALL)
def output_outside(t):
    """An output outside of Extism memory."""
    places = {"past the end": lambda end: (end, 1), "over the end": lambda end: (end - 4, 8)}
    for name, place in places.items():
        def steps(p):
            end = yield "memory_bytes"
            yield ("output_set", *place(end))
            t.see(f"{name} continues", True)

        result = Probe(t).run(steps)
        t.see(f"{name}.code", result.code)
        t.error(f"{name}.error", result.error)


@script(("direct",))
def output_far_outside(t):
    """An output far outside: 1.41 makes the host read where nothing is."""

    def steps(p):
        yield "output_set", BIG, 1 << 20
        t.see("continues", True)

    t.result("run", Probe(t).run(steps))


@script(("direct",))
def output_wrapping(t):
    """An output whose offset and length wrap around."""

    def steps(p):
        yield "output_set", -16, 64
        t.see("continues", True)

    t.result("run", Probe(t).run(steps))


@script(ALL)
def error(t):
    """error_set and error_get."""
    probe = Probe(t)

    def plain(p):
        t.see("error_get before", (yield "error_get"))
        block = yield from p.put(b"my own error")
        yield "error_set", block
        handle = yield "error_get"
        t.see("error_get gives a block", handle != 0)
        t.see("its text", (yield from p.get(handle)))
        return 3

    def cleared(p):
        yield "error_set", (yield from p.put(b"gone"))
        yield "error_set", 0
        t.see("error_get after clearing", (yield "error_get"))

    def replaced(p):
        yield "error_set", (yield from p.put(b"first"))
        yield "error_set", (yield from p.put(b"second error"))

    def freed_after(p):
        block = yield from p.put(b"freed text")
        yield "error_set", block
        yield "free", block

    def changed_after(p):
        block = yield from p.put(b"copied at once")
        yield "error_set", block
        yield "store_u8", block, ord("C")

    def no_block(p):
        block = yield from p.put(b"a block")
        yield "error_set", block + 1
        t.see("no block: continues", True)

    def absurd(p):
        yield "error_set", BIG
        t.see("absurd: continues", True)

    def with_output(p):
        block = yield from p.put(b"output too")
        yield "output_set", block, 10
        yield "error_set", (yield from p.put(b"error and output"))
        return 1

    def zero_code(p):
        yield "error_set", (yield from p.put(b"code is 0"))
        return 0

    def not_utf8(p):
        yield "error_set", (yield from p.put(b"caf\xe9"))
        return 1

    def with_nul(p):
        yield "error_set", (yield from p.put(b"before\0after"))
        return 1

    def no_error(p):
        t.see("error_get of the next call", (yield "error_get"))

    for steps in (plain, cleared, replaced, freed_after, changed_after, no_block, absurd, with_output, zero_code,
                  not_utf8, with_nul, no_error):
        t.result(steps.__name__, probe.run(steps), own=True)


@script(ALL)
def errors_end_with_the_next_call(t):
    """An error is that of the last call."""
    probe = Probe(t)

    def fails(p):
        yield "error_set", (yield from p.put(b"once"))
        return 1

    def works(p):
        yield "memory_bytes"

    t.error("before any call", probe.plugin.error(), own=True)
    t.result("fails", probe.run(fails), own=True)
    t.result("works", probe.run(works), own=True)
    t.error("afterwards", probe.plugin.error(), own=True)


@script(ALL)
def big_input(t):
    """A megabyte through input and output."""
    content = bytes(range(256)) * 4096

    def steps(p):
        t.see("length", (yield "input_length"))
        t.see("words", (yield from p.each("input_load_u64", (0, 8, 65531, len(content) - 8))))
        yield "output_set", (yield "input_offset"), (yield "input_length")

    t.result("run", Probe(t).run(steps, content))
