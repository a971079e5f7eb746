// Four lanes that share a row: a matrix instruction leaves lane `q` columns `2q` and `2q + 1` of every eight, which are stored
// best as 16 bytes a lane.
#pragma once
#include "../ptx/types.cuh"

/// What a lane of a quad keeps and gives away.
struct Quad {
    bool odd, upper;

    METHOD explicit Quad(u32 lane) : odd(lane % 2), upper(lane / 2 % 2) {}

    /// Which four columns of a pair of eights are this lane's after `gather`.
    METHOD u32 four() const { return odd * 8 + upper * 4; }
    /// Which eight of four eights are this lane's after `gather_bf16`.
    METHOD u32 eight() const { return upper * 16 + odd * 8; }

    /// Of the pairs of two neighbouring eights, four columns in a row of one of them.
    METHOD float4 gather(const float2& first, const float2& second) const {
        const float x = __shfl_xor_sync(0xffffffffu, odd ? first.x : second.x, 1);
        const float y = __shfl_xor_sync(0xffffffffu, odd ? first.y : second.y, 1);
        float4 r;
        r.x = odd ? x : first.x, r.y = odd ? y : first.y;
        r.z = odd ? second.x : x, r.w = odd ? second.y : y;
        return r;
    }

    /// The way back, in place: the pair of the first eight comes as the first two of four columns, the other as the last.
    METHOD void scatter(float& first_x, float& first_y, float& second_x, float& second_y) const {
        const float x = __shfl_xor_sync(0xffffffffu, odd ? first_x : second_x, 1);
        const float y = __shfl_xor_sync(0xffffffffu, odd ? first_y : second_y, 1);
        if (odd) {
            first_x = x, first_y = y;
        } else {
            second_x = x, second_y = y;
        }
    }

    /// Of the pairs of four neighbouring eights, rounded to 32 bits each, eight columns in a row of one of them.
    METHOD uint4 gather_bf16(const u32 (&pair)[4]) const {
        u32 low[2], high[2];
#pragma unroll
        for (u32 e = 0; e < 2; e++) {
            const u32 got = shuffle_xor_bits(odd ? pair[e * 2] : pair[e * 2 + 1], 1);
            low[e] = odd ? got : pair[e * 2];
            high[e] = odd ? pair[e * 2 + 1] : got;
        }
        const u32 x = shuffle_xor_bits(upper ? low[0] : low[1], 2), y = shuffle_xor_bits(upper ? high[0] : high[1], 2);
        uint4 r;
        r.x = upper ? x : low[0], r.y = upper ? y : high[0];
        r.z = upper ? low[1] : x, r.w = upper ? high[1] : y;
        return r;
    }
};
