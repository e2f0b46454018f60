// The shapes of wgmma, one pair of overloads (A in shared memory, A in registers) per N.
// Included by wgmma.cuh inside its namespace; nvcc only.
//
// An accumulator of N/2 registers is written as N/16 groups of eight operands: Gi is the text of
// group i in the instruction, Vi its registers.
#define WGMMA_V(i)                                                              \
    "+f"(d[8 * i]), "+f"(d[8 * i + 1]), "+f"(d[8 * i + 2]), "+f"(d[8 * i + 3]), \
        "+f"(d[8 * i + 4]), "+f"(d[8 * i + 5]), "+f"(d[8 * i + 6]), "+f"(d[8 * i + 7])
#define WGMMA_G0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define WGMMA_G1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_G2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define WGMMA_G3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_G4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define WGMMA_G5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_G6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define WGMMA_G7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_G8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define WGMMA_G9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_G10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define WGMMA_G11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_G12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define WGMMA_G13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_G14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define WGMMA_G15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_TEXT4 WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3
#define WGMMA_REGISTERS4 WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3)
#define WGMMA_TEXT5 WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4
#define WGMMA_REGISTERS5 WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4)
#define WGMMA_TEXT6 WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5
#define WGMMA_REGISTERS6 WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5)
#define WGMMA_TEXT7 \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6
#define WGMMA_REGISTERS7 \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6)
#define WGMMA_TEXT8                                                                              \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6 \
             ", " WGMMA_G7
#define WGMMA_REGISTERS8 \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6), WGMMA_V(7)
#define WGMMA_TEXT10                                                                             \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6 \
             ", " WGMMA_G7 ", " WGMMA_G8 ", " WGMMA_G9
#define WGMMA_REGISTERS10                                                               \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6), \
        WGMMA_V(7), WGMMA_V(8), WGMMA_V(9)
#define WGMMA_TEXT11                                                                             \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6 \
             ", " WGMMA_G7 ", " WGMMA_G8 ", " WGMMA_G9 ", " WGMMA_G10
#define WGMMA_REGISTERS11                                                               \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6), \
        WGMMA_V(7), WGMMA_V(8), WGMMA_V(9), WGMMA_V(10)
#define WGMMA_TEXT12                                                                             \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6 \
             ", " WGMMA_G7 ", " WGMMA_G8 ", " WGMMA_G9 ", " WGMMA_G10 ", " WGMMA_G11
#define WGMMA_REGISTERS12                                                               \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6), \
        WGMMA_V(7), WGMMA_V(8), WGMMA_V(9), WGMMA_V(10), WGMMA_V(11)
#define WGMMA_TEXT14                                                                             \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6 \
             ", " WGMMA_G7 ", " WGMMA_G8 ", " WGMMA_G9 ", " WGMMA_G10 ", " WGMMA_G11             \
             ", " WGMMA_G12 ", " WGMMA_G13
#define WGMMA_REGISTERS14                                                               \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6), \
        WGMMA_V(7), WGMMA_V(8), WGMMA_V(9), WGMMA_V(10), WGMMA_V(11), WGMMA_V(12), WGMMA_V(13)
#define WGMMA_TEXT16                                                                             \
    WGMMA_G0 ", " WGMMA_G1 ", " WGMMA_G2 ", " WGMMA_G3 ", " WGMMA_G4 ", " WGMMA_G5 ", " WGMMA_G6 \
             ", " WGMMA_G7 ", " WGMMA_G8 ", " WGMMA_G9 ", " WGMMA_G10 ", " WGMMA_G11             \
             ", " WGMMA_G12 ", " WGMMA_G13 ", " WGMMA_G14 ", " WGMMA_G15
#define WGMMA_REGISTERS16                                                                       \
    WGMMA_V(0), WGMMA_V(1), WGMMA_V(2), WGMMA_V(3), WGMMA_V(4), WGMMA_V(5), WGMMA_V(6),         \
        WGMMA_V(7), WGMMA_V(8), WGMMA_V(9), WGMMA_V(10), WGMMA_V(11), WGMMA_V(12), WGMMA_V(13), \
        WGMMA_V(14), WGMMA_V(15)

// SHAPE is "n<N>", TEXT and REGISTERS list the accumulators, I0.. number the operands after them.
#define WGMMA(COUNT, SHAPE, TEXT, REGISTERS, I0, I1, I2, I3, I4, I5, I6)                       \
    template <Major A_MAJOR = K_MAJOR, Major B_MAJOR = K_MAJOR>                                \
    DEVICE void wgmma(float(&d)[COUNT], u64 a, u64 b, int accumulate) {                        \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" I2                                   \
                     ", 0;\n"                                                                  \
                     "wgmma.mma_async.sync.aligned.m64" SHAPE "k16.f32.bf16.bf16 {" TEXT       \
                     "}, "                                                                     \
                     "%" I0 ", %" I1 ", p, 1, 1, %" I3 ", %" I4 ";\n}"                         \
                     : REGISTERS                                                               \
                     : "l"(a), "l"(b), "r"(accumulate), "n"((int)A_MAJOR), "n"((int)B_MAJOR)); \
    }                                                                                          \
    template <Major B_MAJOR = K_MAJOR>                                                         \
    DEVICE void wgmma(float(&d)[COUNT], const u32(&a)[4], u64 b, int accumulate) {             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" I5                                   \
                     ", 0;\n"                                                                  \
                     "wgmma.mma_async.sync.aligned.m64" SHAPE "k16.f32.bf16.bf16 {" TEXT       \
                     "}, "                                                                     \
                     "{%" I0 ", %" I1 ", %" I2 ", %" I3 "}, %" I4 ", p, 1, 1, %" I6 ";\n}"     \
                     : REGISTERS                                                               \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),    \
                       "n"((int)B_MAJOR));                                                     \
    }
WGMMA(32, "n64", WGMMA_TEXT4, WGMMA_REGISTERS4, "32", "33", "34", "35", "36", "37", "38")
WGMMA(40, "n80", WGMMA_TEXT5, WGMMA_REGISTERS5, "40", "41", "42", "43", "44", "45", "46")
WGMMA(48, "n96", WGMMA_TEXT6, WGMMA_REGISTERS6, "48", "49", "50", "51", "52", "53", "54")
WGMMA(56, "n112", WGMMA_TEXT7, WGMMA_REGISTERS7, "56", "57", "58", "59", "60", "61", "62")
WGMMA(64, "n128", WGMMA_TEXT8, WGMMA_REGISTERS8, "64", "65", "66", "67", "68", "69", "70")
WGMMA(80, "n160", WGMMA_TEXT10, WGMMA_REGISTERS10, "80", "81", "82", "83", "84", "85", "86")
WGMMA(88, "n176", WGMMA_TEXT11, WGMMA_REGISTERS11, "88", "89", "90", "91", "92", "93", "94")
WGMMA(96, "n192", WGMMA_TEXT12, WGMMA_REGISTERS12, "96", "97", "98", "99", "100", "101", "102")
WGMMA(112, "n224", WGMMA_TEXT14, WGMMA_REGISTERS14, "112", "113", "114", "115", "116", "117", "118")
WGMMA(128, "n256", WGMMA_TEXT16, WGMMA_REGISTERS16, "128", "129", "130", "131", "132", "133", "134")

#undef WGMMA
#undef WGMMA_V
#undef WGMMA_G0
#undef WGMMA_G1
#undef WGMMA_G2
#undef WGMMA_G3
#undef WGMMA_G4
#undef WGMMA_G5
#undef WGMMA_G6
#undef WGMMA_G7
#undef WGMMA_G8
#undef WGMMA_G9
#undef WGMMA_G10
#undef WGMMA_G11
#undef WGMMA_G12
#undef WGMMA_G13
#undef WGMMA_G14
#undef WGMMA_G15
#undef WGMMA_TEXT4
#undef WGMMA_REGISTERS4
#undef WGMMA_TEXT5
#undef WGMMA_REGISTERS5
#undef WGMMA_TEXT6
#undef WGMMA_REGISTERS6
#undef WGMMA_TEXT7
#undef WGMMA_REGISTERS7
#undef WGMMA_TEXT8
#undef WGMMA_REGISTERS8
#undef WGMMA_TEXT10
#undef WGMMA_REGISTERS10
#undef WGMMA_TEXT11
#undef WGMMA_REGISTERS11
#undef WGMMA_TEXT12
#undef WGMMA_REGISTERS12
#undef WGMMA_TEXT14
#undef WGMMA_REGISTERS14
#undef WGMMA_TEXT16
#undef WGMMA_REGISTERS16
