package cpp

// predefined are the macros compilers for 64-bit Linux define that headers look at.
var predefined = map[string]string{
	"__STDC__": "1", "__STDC_VERSION__": "201112L", "__STDC_HOSTED__": "1",
	"__GNUC__": "12", "__GNUC_MINOR__": "2", "__GNUC_PATCHLEVEL__": "0", "__GNUC_STDC_INLINE__": "1", "__VERSION__": `"12.2.0"`,
	"__linux__": "1", "__linux": "1", "linux": "1", "__unix__": "1", "__unix": "1", "unix": "1", "__gnu_linux__": "1", "__ELF__": "1",
	"__LP64__": "1", "_LP64": "1", "__CHAR_BIT__": "8",
	"__SIZEOF_SHORT__": "2", "__SIZEOF_INT__": "4", "__SIZEOF_LONG__": "8", "__SIZEOF_LONG_LONG__": "8", "__SIZEOF_POINTER__": "8",
	"__SIZEOF_SIZE_T__": "8", "__SIZEOF_PTRDIFF_T__": "8", "__SIZEOF_WCHAR_T__": "4", "__SIZEOF_FLOAT__": "4", "__SIZEOF_DOUBLE__": "8",
	"__SCHAR_MAX__": "0x7f", "__SHRT_MAX__": "0x7fff", "__INT_MAX__": "0x7fffffff", "__LONG_MAX__": "0x7fffffffffffffffL",
	"__LONG_LONG_MAX__": "0x7fffffffffffffffLL", "__SIZE_MAX__": "0xffffffffffffffffUL", "__UINTPTR_MAX__": "0xffffffffffffffffUL",
	"__ORDER_LITTLE_ENDIAN__": "1234", "__ORDER_BIG_ENDIAN__": "4321", "__ORDER_PDP_ENDIAN__": "3412",
	"__BYTE_ORDER__": "__ORDER_LITTLE_ENDIAN__", "__FLOAT_WORD_ORDER__": "__ORDER_LITTLE_ENDIAN__", "__LITTLE_ENDIAN__": "1",
	"__SIZE_TYPE__": "long unsigned int", "__PTRDIFF_TYPE__": "long int", "__WCHAR_TYPE__": "int", "__WINT_TYPE__": "unsigned int",
	"__INTMAX_TYPE__": "long int", "__UINTMAX_TYPE__": "long unsigned int", "__INTPTR_TYPE__": "long int", "__UINTPTR_TYPE__": "long unsigned int",
	"__INT8_TYPE__": "signed char", "__INT16_TYPE__": "short int", "__INT32_TYPE__": "int", "__INT64_TYPE__": "long int",
	"__UINT8_TYPE__": "unsigned char", "__UINT16_TYPE__": "short unsigned int", "__UINT32_TYPE__": "unsigned int",
	"__UINT64_TYPE__": "long unsigned int", "__CHAR16_TYPE__": "short unsigned int", "__CHAR32_TYPE__": "unsigned int",
}

// predefinedArch are those that tell the architecture; the key is whether it is arm64.
var predefinedArch = map[bool]map[string]string{
	false: {"__x86_64__": "1", "__x86_64": "1", "__amd64__": "1", "__amd64": "1"},
	true:  {"__aarch64__": "1", "__AARCH64EL__": "1", "__CHAR_UNSIGNED__": "1"},
}

// compilerHeaders are the headers every C compiler brings itself, in the little that declarations use of them.
var compilerHeaders = map[string]string{
	"stddef.h": `
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef __WCHAR_TYPE__ wchar_t;
#ifndef NULL
#define NULL ((void *)0)
#endif
`,
	"stdarg.h": `
typedef char *__gnuc_va_list;
typedef __gnuc_va_list va_list;
`,
	"stdbool.h": `
#define bool _Bool
#define true 1
#define false 0
`,
	"limits.h": `
#define CHAR_BIT 8
#define SCHAR_MAX 127
#define SCHAR_MIN (-128)
#define UCHAR_MAX 255
#define SHRT_MAX 32767
#define SHRT_MIN (-32768)
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295U
#define LONG_MAX 9223372036854775807L
#define LONG_MIN (-9223372036854775807L - 1L)
#define ULONG_MAX 18446744073709551615UL
#define LLONG_MAX 9223372036854775807LL
#define LLONG_MIN (-9223372036854775807LL - 1LL)
#define ULLONG_MAX 18446744073709551615ULL
`,
	"stdint.h": `
typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __INTPTR_TYPE__ intptr_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef __INTMAX_TYPE__ intmax_t;
typedef __UINTMAX_TYPE__ uintmax_t;
`,
	"float.h": "",
}
