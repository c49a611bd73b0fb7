"""The fused kernel: one program a row, which takes steps until its own row halts.

It is the network of model/network/recurrent.py and the scores of model/network/scores.py once more, for
a state that fits on chip: between two steps nothing leaves it but logits and scores. What a row computes
depends on nothing but that row, so alone equals together by construction.

Who changes a formula there changes it here; tests/service/runners/test_fused.py holds the two together.
"""

from __future__ import annotations

import triton
import triton.language as tl

FEATURES = tl.constexpr(16)  # of the halting head
HIDDEN = tl.constexpr(32)
PART = tl.constexpr(32)  # channels that a product sums at a time: with more of them, registers spill
ORDER = tl.constexpr(8)  # numbers in an order, see orders.py
CLASSES = tl.constexpr(2)
TINY = tl.constexpr(1e-12)
EPSILON = tl.constexpr(1e-5)  # of a layer normalisation
FAR_AWAY = tl.constexpr(-1e9)  # what hides a token, as in the context


@triton.jit
def normal(x, WIDTH: tl.constexpr):
    """Layer normalisation without weights: (N, D) -> (N, D)."""
    centred = x - (tl.sum(x, 1) / WIDTH)[:, None]
    return centred / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + EPSILON)[:, None]


@triton.jit
def affine(x, weight, bias):
    """A weight and a bias per channel: (N, D), pointers to (D,) -> (N, D)."""
    return x * tl.load(weight)[None, :] + tl.load(bias)[None, :]


@triton.jit
def through(x, matrix, STRIDE: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, PRECISION: tl.constexpr):
    """x @ W: (N, IN), a pointer to W (IN, OUT) whose rows are STRIDE apart -> (N, OUT)."""
    if IN > PART:
        HALF: tl.constexpr = IN // 2
        left, right = tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, HALF)), (0, 2, 1)))
        products = through(left, matrix, STRIDE, HALF, OUT, PRECISION)
        products += through(right, matrix + HALF * STRIDE, STRIDE, HALF, OUT, PRECISION)
    else:
        weights = tl.load(matrix + tl.arange(0, IN)[:, None] * STRIDE + tl.arange(0, OUT)[None, :])
        products = tl.dot(x, weights, input_precision=PRECISION)
    return products


@triton.jit
def gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def chances(a, b):
    """Log-probabilities of two classes and their entropy."""
    top = tl.maximum(a, b)
    total = top + tl.log(tl.exp(a - top) + tl.exp(b - top))
    a, b = a - total, b - total
    return a, b, -(tl.exp(a) * a + tl.exp(b) * b)


@triton.jit
def length(x):
    """(N, D) -> (N,)."""
    return tl.sqrt(tl.sum(x * x, 1))


@triton.jit
def think(
    attention,  # (R, 1, N, N) float32
    places,  # (R, 2, N) float32
    real,  # (R, N) bool
    state,  # (R, N, D) float32, changed in place, and so are the next three
    readout,  # (R, 2) float32
    delta,  # (R, N, D) float32
    stability,  # (R,) float32
    orders,  # (R, 8) int32, see orders.py; changed in place
    weights,  # (W,) float32, see weights.py
    shown,  # (K, R, 2 + S) float32: logits and scores of each step that is taken; or of the last, (R, 2 + S)
    apart,  # how many rows lie between two steps there: R, or 0
    tokens,  # N
    TOKENS: tl.constexpr,  # N, rounded up to a power of two, at least 16
    WIDTH: tl.constexpr,  # D
    EXPANDED: tl.constexpr,  # width of the feed-forward layer
    HEADS: tl.constexpr,
    LEARNED: tl.constexpr,  # whether there is a halting head
    CHUNK: tl.constexpr,  # columns of the feed-forward layer at a time
    PRECISION: tl.constexpr,
):
    """Every row takes as many steps as its order says, or fewer: until it halts, or shows no number."""
    row = tl.program_id(0)
    order = orders + row * ORDER
    steps = tl.load(order + 7)
    if steps > 0:
        HEAD: tl.constexpr = WIDTH // HEADS
        SHOWN: tl.constexpr = CLASSES + 8 + LEARNED
        n, d = tl.arange(0, TOKENS), tl.arange(0, WIDTH)
        inside = n < tokens
        tile = row.to(tl.int64) * tokens * WIDTH + n[:, None] * WIDTH + d[None, :]
        seen = row.to(tl.int64) * tokens * tokens + n[:, None] * tokens + n[None, :]
        h = tl.load(state + tile, mask=inside[:, None], other=0.0)
        moved_before = tl.load(delta + tile, mask=inside[:, None], other=0.0)
        here = tl.load(real + row * tokens + n, mask=inside, other=0) != 0
        source = tl.load(places + row * 2 * tokens + n, mask=inside, other=0.0)
        target = tl.load(places + (row * 2 + 1) * tokens + n, mask=inside, other=0.0)
        said_a, said_b = tl.load(readout + row * 2), tl.load(readout + row * 2 + 1)
        stable = tl.load(stability + row)
        column, above = tl.load(order), tl.load(order + 1)
        threshold = tl.load(order + 2).to(tl.float32, bitcast=True)
        min_steps, patience = tl.load(order + 3), tl.load(order + 4)
        depth, held = tl.load(order + 5), tl.load(order + 6)
        taken = 0

        # Where the weights lie; every matrix is (in, out).
        norm_1 = weights + d
        query = weights + 2 * WIDTH  # (D, 3 D), its bias behind it
        query_bias = query + 3 * WIDTH * WIDTH
        out = query_bias + 3 * WIDTH
        out_bias = out + WIDTH * WIDTH + d
        norm_2 = out_bias + WIDTH
        expand = weights + 4 * WIDTH * WIDTH + 8 * WIDTH
        expand_bias = expand + WIDTH * EXPANDED
        contract = expand_bias + EXPANDED
        contract_bias = contract + EXPANDED * WIDTH + d
        scale_1 = contract_bias + WIDTH
        gate = contract + EXPANDED * WIDTH + 3 * WIDTH  # (2 D, D)
        gate_bias = gate + 2 * WIDTH * WIDTH + d
        head_norm = gate_bias + WIDTH  # (2, 2 D): weight and bias
        head = head_norm + 4 * WIDTH  # (2, 2 D), and the bias
        learned = gate + 2 * WIDTH * WIDTH + 9 * WIDTH + CLASSES

        going = steps > 0
        while going:
            x = affine(normal(h, WIDTH), norm_1, norm_1 + WIDTH)
            mixed = tl.zeros((TOKENS, WIDTH), tl.float32)
            for number in range(HEADS):
                mine = query + number * HEAD
                bias = query_bias + number * HEAD + tl.arange(0, HEAD)
                q = through(x, mine, 3 * WIDTH, WIDTH, HEAD, PRECISION) + tl.load(bias)[None, :]
                k = (
                    through(x, mine + WIDTH, 3 * WIDTH, WIDTH, HEAD, PRECISION)
                    + tl.load(bias + WIDTH)[None, :]
                )
                logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) / tl.sqrt(HEAD * 1.0)
                logits += tl.load(attention + seen, mask=inside[:, None] & inside[None, :], other=FAR_AWAY)
                logits = tl.exp(logits - tl.max(logits, 1)[:, None])
                logits = logits / tl.sum(logits, 1)[:, None]
                v = through(x, mine + 2 * WIDTH, 3 * WIDTH, WIDTH, HEAD, PRECISION)
                v += tl.load(bias + 2 * WIDTH)[None, :]
                heard = tl.dot(logits, v, input_precision=PRECISION)
                mixed += through(heard, out + number * HEAD * WIDTH, WIDTH, HEAD, WIDTH, PRECISION)
            y = h + (mixed + tl.load(out_bias)[None, :]) * tl.load(scale_1)[None, :]
            x = affine(normal(y, WIDTH), norm_2, norm_2 + WIDTH)
            mixed = tl.zeros((TOKENS, WIDTH), tl.float32)
            for first in range(0, EXPANDED, CHUNK):
                wide = through(x, expand + first, EXPANDED, WIDTH, CHUNK, PRECISION)
                wide = gelu(wide + tl.load(expand_bias + first + tl.arange(0, CHUNK))[None, :])
                mixed += through(wide, contract + first * WIDTH, WIDTH, CHUNK, WIDTH, PRECISION)
            y = normal(
                y + (mixed + tl.load(contract_bias)[None, :]) * tl.load(scale_1 + WIDTH)[None, :], WIDTH
            )
            z = through(y, gate, WIDTH, WIDTH, WIDTH, PRECISION)
            z += through(h, gate + WIDTH * WIDTH, WIDTH, WIDTH, WIDTH, PRECISION)
            z = tl.sigmoid(z + tl.load(gate_bias)[None, :])
            new = tl.where(here[:, None], z * y + (1 - z) * h, 0.0)
            moved = new - h

            at_source, at_target = tl.sum(new * source[:, None], 0), tl.sum(new * target[:, None], 0)
            mean = (tl.sum(at_source, 0) + tl.sum(at_target, 0)) / (2 * WIDTH)
            at_source, at_target = at_source - mean, at_target - mean
            spread = tl.sum(at_source * at_source, 0) + tl.sum(at_target * at_target, 0)
            spread = tl.sqrt(spread / (2 * WIDTH) + EPSILON)
            at_source = at_source / spread * tl.load(head_norm) + tl.load(head_norm + 2 * WIDTH)
            at_target = at_target / spread * tl.load(head_norm + WIDTH) + tl.load(head_norm + 3 * WIDTH)
            a = tl.sum(at_source * tl.load(head), 0) + tl.sum(at_target * tl.load(head + WIDTH), 0)
            b = tl.sum(at_source * tl.load(head + 2 * WIDTH), 0)
            b += tl.sum(at_target * tl.load(head + 3 * WIDTH), 0)
            a += tl.load(learned - 2)
            b += tl.load(learned - 1)

            p_a, p_b, entropy = chances(a, b)
            q_a, q_b, entropy_before = chances(said_a, said_b)
            confidence = tl.exp(tl.maximum(p_a, p_b))
            entropy_diff = tl.abs(entropy - entropy_before)
            kl = tl.exp(p_a) * (p_a - q_a) + tl.exp(p_b) * (p_b - q_b)
            stable = tl.where((b > a) == (said_b > said_a), stable + 1.0, 0.0)
            far, size = length(moved), tl.maximum(length(new), TINY)
            latent_diff = tl.max(tl.where(here, far / size, 0.0), 0)
            turned = 1.0 - tl.sum(new * h, 1) / (size * tl.maximum(length(h), TINY))
            cosine = tl.max(tl.where(here & (far > 0), turned, 0.0), 0)
            acceleration = tl.max(tl.where(here, length(moved - moved_before) / size, 0.0), 0)

            to = shown + (taken * apart + row) * SHOWN
            tl.store(to, a)
            tl.store(to + 1, b)
            to += CLASSES
            tl.store(to, confidence)
            tl.store(to + 1, entropy)
            tl.store(to + 2, entropy_diff)
            tl.store(to + 3, kl)
            tl.store(to + 4, latent_diff)
            tl.store(to + 5, cosine)
            tl.store(to + 6, acceleration)
            tl.store(to + 7, stable)
            watched = tl.where(column == 0, confidence, tl.where(column == 1, entropy, entropy_diff))
            watched = tl.where(column == 3, kl, tl.where(column == 4, latent_diff, watched))
            watched = tl.where(column == 5, cosine, tl.where(column == 6, acceleration, watched))
            watched = tl.where(column == 7, stable, watched)
            if LEARNED:
                f, i = tl.arange(0, FEATURES), tl.arange(0, HIDDEN)
                feature = learned + 2 * WIDTH  # (2 D, 16)
                hidden = feature + 2 * WIDTH * FEATURES + FEATURES  # (2 D + 16, 32)
                last = hidden + (2 * WIDTH + FEATURES) * HIDDEN + i  # the bias, and the last layer
                x = affine(normal(new, WIDTH), learned + d, learned + WIDTH + d)
                features = through(x, feature, FEATURES, WIDTH, FEATURES, PRECISION)
                features += through(moved, feature + WIDTH * FEATURES, FEATURES, WIDTH, FEATURES, PRECISION)
                features = tl.sigmoid(features + tl.load(feature + 2 * WIDTH * FEATURES + f)[None, :])
                largest = tl.max(tl.where(here[:, None], features, 0.0), 0)
                at_source, at_target = tl.sum(x * source[:, None], 0), tl.sum(x * target[:, None], 0)
                by = hidden + d[:, None] * HIDDEN + i[None, :]
                inner = tl.sum(at_source[:, None] * tl.load(by), 0)
                inner += tl.sum(at_target[:, None] * tl.load(by + WIDTH * HIDDEN), 0)
                by = hidden + 2 * WIDTH * HIDDEN + f[:, None] * HIDDEN + i[None, :]
                inner += tl.sum(largest[:, None] * tl.load(by), 0)
                inner = gelu(inner + tl.load(last)) * tl.load(last + HIDDEN)
                end = hidden + (2 * WIDTH + FEATURES) * HIDDEN + 2 * HIDDEN
                surely = tl.sigmoid(tl.sum(inner, 0) + tl.load(end))
                tl.store(to + 8, surely)
                watched = tl.where(column == 8, surely, watched)

            taken += 1
            enough = tl.where(above != 0, watched >= threshold, watched <= threshold)
            holds = (column >= 0) & (depth + taken >= min_steps) & enough
            held = tl.where(holds, held + 1, 0)
            sound = (tl.abs(a) < float("inf")) & (tl.abs(b) < float("inf"))
            going = (taken < steps) & (held < patience) & sound
            h, moved_before, said_a, said_b = new, moved, a, b

        tl.store(state + tile, h, mask=inside[:, None])
        tl.store(delta + tile, moved_before, mask=inside[:, None])
        tl.store(readout + row * 2, said_a)
        tl.store(readout + row * 2 + 1, said_b)
        tl.store(stability + row, stable)
        tl.store(order + 5, depth + taken)
        tl.store(order + 6, held)
        tl.store(order + 7, taken)
