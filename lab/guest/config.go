package guest

import _ "embed"

// ConfigFragment are the options a kernel needs to boot here and to be looked at, in the form of scripts/kconfig.
//
//go:embed fragment.config
var ConfigFragment string
