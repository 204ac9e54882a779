"""The counting of machine code in benchmarks/kernel_account.py, on a text whose counts are known."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import kernel_account

# A loop over slices with a barrier, and in it a loop of four passes with two matrix instructions.
CODE = """
.text.multiply:
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/              @!P0 LDG.E.128 R36, desc[UR10][R26.64] ;
.L_x_1:
        /*0020*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0030*/                   LDGSTS.E.BYPASS.128 [R63], desc[UR4][R2.64], P1 ;
        /*0038*/              @!PT LDS RZ, [RZ] ;
        /*0040*/                   IADD3 R4, R4, 0x1, RZ ;
.L_x_2:
        /*0050*/                   LDS R44, [R9+0x10] ;
        /*0060*/                   LDSM.16.M88.4 R8, [R4+0x800] ;
        /*0070*/                   HMMA.1688.F32.TF32 R48, R44.reuse, R76, R48 ;
        /*0080*/                   HMMA.16816.F32.BF16 R24, R44, R78, R24 ;
        /*0090*/              @!P3 BRA `(.L_x_2) ;
        /*00a0*/               @P2 BRA `(.L_x_1) ;
        /*00b0*/                   STG.E [R2], R4 ;
        /*00c0*/                   EXIT ;
.text.add:
.L_x_3:
        /*0000*/                   LDG.E.U16 R4, [R2] ;
        /*0010*/                   LDG.E.64 R6, [R2+0x8] ;
        /*0020*/                   FFMA R5, R4, R4, R5 ;
        /*0030*/                   F2F.F32.F64 R6, R6 ;
        /*0040*/                   MUFU.RSQ R7, R5 ;
        /*0050*/                   SHFL.BFLY PT, R8, R5, 0x1, 0x1f ;
        /*0060*/               @P0 BRA `(.L_x_3) ;
        /*0070*/                   BRA `(.L_x_4) ;
.L_x_4:
        /*0080*/                   EXIT ;
.text.stream:
.L_x_5:
        /*0000*/                   LDG.E.128 R4, [R2] ;
        /*0010*/               @P1 LDG.E.128 R8, [R2+0x10] ;
        /*0020*/                   LDG.E R12, [R14] ;
        /*0030*/                   FFMA R5, R11, R4, R5 ;
        /*0040*/                   LDG.E.128 R16, [R2+0x20] ;
.L_x_6:
        /*0050*/                   SHFL.BFLY PT, R20, R5, 0x1, 0x1f ;
        /*0060*/               @P0 BRA `(.L_x_6) ;
.L_x_7:
        /*0070*/                   LDG.E R21, [R14] ;
        /*0080*/                   LDG.E R22, [R14] ;
        /*0090*/               @P0 BRA `(.L_x_7) ;
        /*00a0*/                   STG.E.128 [R2], R16 ;
        /*00b0*/                   STG.E [R2], R20 ;
        /*00c0*/               @P0 BRA `(.L_x_5) ;
.L_x_8:
        /*00d0*/                   BRA `(.L_x_8) ;
"""


def test_the_main_loop_of_a_product_is_that_with_its_barriers():
    loop, outside, _ = kernel_account.main_loop(kernel_account.read(CODE)["multiply"], passes=4)
    assert (loop.tensor, loop.barriers, loop.shared_loads, loop.global_loads) == (8, 1, 8, 1)
    assert loop.multiply_adds == 4 * (16 * 8 * 8 + 16 * 8 * 16)
    assert loop.tensor_cycles == 4 * (2 * 16 * 8 * 8 + 16 * 8 * 16)  # TF32 at half the rate
    # 4 bytes of LDS, 16 of LDSM in each of four passes, and 16 that are copied.
    assert loop.shared_bytes == 32 * (4 * (4 + 16) + 16)
    assert loop.global_bytes == 32 * 16
    assert loop.instructions == 5 + 4 * 5
    assert outside.instructions == 4
    assert outside.global_loads == 1


def test_the_main_loop_of_another_kernel_moves_most_bytes():
    loop, outside, _ = kernel_account.main_loop(kernel_account.read(CODE)["add"])
    assert (loop.global_loads, loop.global_bytes) == (2, 32 * (2 + 8))
    assert (loop.floats, loop.conversions, loop.special, loop.shuffles) == (1, 1, 1, 1)
    assert outside.instructions == 2


def test_a_stream_is_its_widest_loads_without_inner_loops_that_load():
    loop, outside, body = kernel_account.main_loop(kernel_account.read(CODE)["stream"], passes=5)
    assert (loop.wide_loads, loop.global_loads, loop.wide_stores, loop.shuffles) == (3, 4, 1, 5)
    assert (loop.streamed, loop.written) == (3 * 512, 512)
    assert outside.instructions == 1
    # R11 is the end of the second load, so both of them arrive before the third one is requested.
    assert kernel_account.loads_in_flight(body) == 2 * 512


def test_without_enough_loads_in_flight_a_stream_is_bound_by_latency():
    machine = kernel_account.MACHINES["sm_90"]
    assert machine.needed == pytest.approx(3350 / 132 * 650)
    code = kernel_account.read(CODE)["stream"]
    few = kernel_account.Resources("a.cu", "sm_90", "a", "a", 255, 0, 0, 0)
    entry = kernel_account.account(few, code)
    assert (entry["blocks"], entry["in_flight"]) == (1, 8 * 2 * 512)
    # A store for three loads: of the bandwidth, loads take three quarters.
    assert entry["bound"] == "latency"
    assert entry["share"] == pytest.approx(4 / 3 * 8 * 2 * 512 / machine.needed)
    many = kernel_account.account(few._replace(registers=40), code)
    assert (many["bound"], many["share"], many["blocks"]) == ("memory", 1, 6)
    large = kernel_account.account(few._replace(registers=80, kernel="pool_clips<float, true, 4>"), code)
    assert (large["blocks"], large["in_flight"]) == (1, 24 * 2 * 512)


@pytest.mark.parametrize("arch", kernel_account.MACHINES)
def test_the_busiest_unit_bounds_the_loop(arch):
    machine = kernel_account.MACHINES[arch]
    peak = kernel_account.Counts(tensor=1, tensor_cycles=2048 * machine.mma)
    assert peak.cycles(machine)["tensor"] == pytest.approx(8 * 2048 / machine.multiply_adds)
    stream = kernel_account.Counts(global_bytes=512)
    assert stream.cycles(machine)["memory"] == pytest.approx(8 * 512 / machine.dram)


def test_halves_are_one_product():
    assert kernel_account.products("mine_tiles<true, __nv_bfloat16, 4>") == 1
    assert kernel_account.products("part_distances<__half>") == 1
    assert kernel_account.products("mine_tiles<true, float, 4>") == 3
