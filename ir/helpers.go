package ir

// Numbers of the kernel's helpers (include/uapi/linux/bpf.h, ___BPF_FUNC_MAPPER).
const (
	FnMapLookup          = 1
	FnMapUpdate          = 2
	FnMapDelete          = 3
	FnProbeRead          = 4
	FnKtimeGetNs         = 5
	FnTracePrintk        = 6
	FnPrandomU32         = 7
	FnSmpProcessorID     = 8
	FnCurrentPidTgid     = 14
	FnCurrentUidGid      = 15
	FnCurrentComm        = 16
	FnPerfEventOutput    = 25
	FnGetStackid         = 27
	FnCurrentTask        = 35
	FnGetNumaNodeID      = 42
	FnProbeReadStr       = 45
	FnGetSocketCookie    = 46
	FnOverrideReturn     = 58
	FnGetStack           = 67
	FnCurrentCgroupID    = 80
	FnSendSignal         = 109
	FnSkbOutput          = 111
	FnProbeReadUser      = 112
	FnProbeReadKernel    = 113
	FnProbeReadUserStr   = 114
	FnProbeReadKernelStr = 115
	FnSendSignalThread   = 117
	FnJiffies64          = 118
	FnGetNsPidTgid       = 120
	FnKtimeGetBootNs     = 125
	FnRingbufOutput      = 130
	FnRingbufReserve     = 131
	FnRingbufSubmit      = 132
	FnGetTaskStack       = 141
	FnPerCPUPtr          = 153
	FnThisCPUPtr         = 154
	FnDPath              = 147
	FnCurrentTaskBTF     = 158
	FnTaskPtRegs         = 175
	FnKtimeGetCoarseNs   = 160
	FnForEachMapElem     = 164
	FnSnprintf           = 165
	FnGetFuncIP          = 173
	FnGetAttachCookie    = 174
	FnLoop               = 181
	FnStrncmp            = 182
	FnGetFuncArg         = 183
	FnGetFuncRet         = 184
	FnMapLookupPerCPU    = 195
	FnKtimeGetTaiNs      = 208
	FnProbeWriteUser     = 36
)
