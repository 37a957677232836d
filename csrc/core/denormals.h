// Numbers below 2^-126, which some processors take a hundred times as long to multiply.
#pragma once

namespace qb {

// While it lives, the calling thread takes them for zero and writes zero for them. Nothing on other processors than
// x86.
class NoDenormals {
public:
#ifdef QB_X86
    NoDenormals() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | kInputs | kResults); }
    ~NoDenormals() { __builtin_ia32_ldmxcsr(before_); }
#else
    NoDenormals() {}
#endif
    NoDenormals(const NoDenormals&) = delete;
    NoDenormals& operator=(const NoDenormals&) = delete;

private:
#ifdef QB_X86
    static constexpr unsigned kInputs = 1 << 6, kResults = 1 << 15;
    const unsigned before_;
#endif
};

}  // namespace qb
