package check

import (
	"fmt"
	"maps"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// setting sets a configuration variable from a literal; the message says what is wrong with it. isSet reports a value that
// the command line or the environment gave, which wins over the program's.
type setting struct {
	isSet func(*Config) bool
	set   func(*Config, configValue) string
}

// configValue is the value of an assignment in a config block.
type configValue struct {
	Const
	word bool // a bare word or a string: stack_mode=perf
}

// intSetting makes a setting of a number.
func intSetting(field func(*Config) *int) setting {
	return setting{func(c *Config) bool { return *field(c) != 0 }, func(c *Config, v configValue) string {
		if v.IsStr || v.Int < 0 {
			return "expecting a number"
		}
		*field(c) = int(min(v.Int, 1<<40))
		return ""
	}}
}

// boolSetting makes a setting of a truth; not inverts it.
func boolSetting(field func(*Config) *bool, not bool) setting {
	return setting{func(c *Config) bool { return *field(c) }, func(c *Config, v configValue) string {
		truth := v.Int != 0
		if v.IsStr {
			if v.Str != "true" && v.Str != "false" {
				return "expecting true or false"
			}
			truth = v.Str == "true"
		}
		*field(c) = truth != not
		return ""
	}}
}

// wordSetting makes a setting of one of some words.
func wordSetting(field func(*Config) *string, words ...string) setting {
	return setting{func(c *Config) bool { return *field(c) != "" }, func(c *Config, v configValue) string {
		for _, w := range words {
			if v.IsStr && strings.EqualFold(v.Str, w) {
				*field(c) = w
				return ""
			}
		}
		return "expecting one of " + strings.Join(words, ", ")
	}}
}

// settings is the table of configuration variables.
var settings = map[string]setting{
	"max_strlen":         intSetting(func(c *Config) *int { return &c.MaxStrlen }),
	"max_map_keys":       intSetting(func(c *Config) *int { return &c.MaxMapKeys }),
	"max_probes":         intSetting(func(c *Config) *int { return &c.MaxProbes }),
	"max_cat_bytes":      intSetting(func(c *Config) *int { return &c.MaxCatBytes }),
	"on_stack_limit":     intSetting(func(c *Config) *int { return &c.OnStackLimit }),
	"perf_rb_pages":      intSetting(func(c *Config) *int { return &c.PerfRBPages }),
	"log_size":           intSetting(func(c *Config) *int { return &c.LogSize }),
	"max_bpf_progs":      ignored,
	"print_maps_on_exit": boolSetting(func(c *Config) *bool { return &c.NoMapsOnExit }, true),
	"cpp_demangle":       boolSetting(func(c *Config) *bool { return &c.NoDemangle }, true),
	"lazy_symbolication": boolSetting(func(c *Config) *bool { return &c.LazySymbols }, false),
	"show_debug_info":    boolSetting(func(c *Config) *bool { return &c.HideDebugInfo }, true),
	"missing_probes":     wordSetting(func(c *Config) *string { return &c.MissingProbes }, "error", "warn", "ignore"),
	"cache_user_symbols": wordSetting(func(c *Config) *string { return &c.CacheUserSyms }, "PER_PROGRAM", "PER_PID", "NONE"),
	"unstable_dw_ustack": wordSetting(func(c *Config) *string { return &c.UnstableDWUstack }, "error", "warn", "enable"),
	"license": wordSetting(func(c *Config) *string { return &c.License },
		"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"),
	"stack_mode": {func(c *Config) bool { return c.StackMode != 0 }, func(c *Config, v configValue) string {
		m, ok := stackModes[v.Str]
		if !ok {
			return "expecting one of bpftrace, perf, raw, build_id"
		}
		c.StackMode = m
		return ""
	}},
	"str_trunc_trailer": {func(c *Config) bool { return c.StrTrunc != nil }, func(c *Config, v configValue) string {
		if !v.IsStr {
			return "expecting a string"
		}
		c.StrTrunc = &v.Str
		return ""
	}},
	"unstable_import": ignored, "unstable_import_statement": ignored, "unstable_tseries": ignored, "unstable_typeinfo": ignored,
	"unstable_map_decl": ignored, "unstable_macro": ignored, "unstable_addr": ignored,
	"use_blazesym": ignored,
}

// ignored are variables that mean nothing here.
var ignored = setting{func(*Config) bool { return false }, func(*Config, configValue) string { return "" }}

// renamed are the old names of variables.
var renamed = map[string]string{
	"strlen": "max_strlen", "cat_bytes_max": "max_cat_bytes", "map_keys_max": "max_map_keys", "no_cpp_demangle": "cpp_demangle",
}

// Set gives the variable name, as a config block or BPFTRACE_NAME in the environment spells it, a value.
func (c *Config) Set(name, value string) error {
	v := configValue{word: true}
	if n, _, err := syntax.ParseInt(value); err == nil {
		v.Const = Const{Int: int64(n)}
	} else {
		v.Const = Const{Str: value, IsStr: true}
	}
	s, key, err := findSetting(name)
	if err != nil {
		return err
	}
	if msg := s.set(c, v); msg != "" {
		return fmt.Errorf("%s: %s", key, msg)
	}
	return nil
}

// findSetting finds the row of a name in any of its spellings.
func findSetting(name string) (setting, string, error) {
	key := strings.TrimPrefix(strings.ToLower(name), "bpftrace_")
	if n, ok := renamed[key]; ok {
		key = n
	}
	s, ok := settings[key]
	if !ok {
		return s, key, fmt.Errorf("%s: not a known configuration option", name)
	}
	return s, key, nil
}

// configure gives the configuration: what the options set, then what the program does, then the defaults.
func (c *checker) configure(block *syntax.Config) Config {
	cfg := c.opts.Config
	if block != nil {
		for _, it := range block.Items {
			c.configItem(&cfg, it)
		}
	}
	for _, d := range []struct {
		field *int
		value int
	}{
		{&cfg.MaxStrlen, 1024}, {&cfg.MaxMapKeys, 4096}, {&cfg.MaxProbes, 1024}, {&cfg.MaxCatBytes, 10240}, {&cfg.OnStackLimit, 32},
		{&cfg.LogSize, 1000000},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if cfg.MaxStrlen > 1<<16 {
		at := syntax.Span{}
		if block != nil {
			at = block.Span
		}
		c.errorf(at, "max_strlen of %d is too large, at most %d", cfg.MaxStrlen, 1<<16)
		cfg.MaxStrlen = 1 << 16
	}
	if cfg.MissingProbes == "" {
		cfg.MissingProbes = "error"
	}
	if cfg.License == "" {
		cfg.License = "GPL"
	}
	return cfg
}

func (c *checker) configItem(cfg *Config, it *syntax.ConfigItem) {
	s, key, err := findSetting(it.Name)
	if err != nil {
		c.errorf(it.Span, "%v", err).Hint = didYouMean(it.Name, maps.Keys(settings))
		return
	}
	if s.isSet(&c.opts.Config) {
		return
	}
	var v configValue
	switch e := it.Value.(type) {
	case *syntax.IntLit:
		v.Const = Const{Int: int64(e.Value)}
	case *syntax.BoolLit:
		v.Const = boolConst(e.Value)
	case *syntax.StrLit:
		v = configValue{Const{Str: e.Value, IsStr: true}, true}
	case *syntax.Ident:
		v = configValue{Const{Str: e.Name, IsStr: true}, true}
	}
	if msg := s.set(cfg, v); msg != "" {
		c.errorf(it.Span, "Invalid value for %s: %s", key, msg)
	}
}

// configField is a variable as the config builtin gives it.
type configField struct {
	name  string
	value Const
}

// fields gives the configuration as literals.
func (c *Config) fields() []configField {
	mode := ""
	for name, m := range stackModes {
		if m == c.StackMode {
			mode = name
		}
	}
	trailer := ".."
	if c.StrTrunc != nil {
		trailer = *c.StrTrunc
	}
	num := func(n int) Const { return Const{Int: int64(n)} }
	str := func(s string) Const { return Const{Str: s, IsStr: true} }
	return []configField{
		{"cache_user_symbols", str(c.CacheUserSyms)}, {"cpp_demangle", boolConst(!c.NoDemangle)},
		{"lazy_symbolication", boolConst(c.LazySymbols)}, {"license", str(c.License)}, {"log_size", num(c.LogSize)},
		{"max_cat_bytes", num(c.MaxCatBytes)}, {"max_map_keys", num(c.MaxMapKeys)}, {"max_probes", num(c.MaxProbes)},
		{"max_strlen", num(c.MaxStrlen)}, {"missing_probes", str(c.MissingProbes)}, {"on_stack_limit", num(c.OnStackLimit)},
		{"perf_rb_pages", num(c.PerfRBPages)}, {"print_maps_on_exit", boolConst(!c.NoMapsOnExit)},
		{"show_debug_info", boolConst(!c.HideDebugInfo)}, {"stack_mode", str(mode)}, {"str_trunc_trailer", str(trailer)},
	}
}

// IsSetting says if there is a configuration variable of that name, in any of its spellings.
func IsSetting(name string) bool {
	_, _, err := findSetting(name)
	return err == nil
}

// StrSize gives the room of a string that str() reads without a length: max_strlen characters and the NUL that reading
// always writes. From the default of 1024 on the NUL counts, so that the room stays a power of two.
func (c Config) StrSize() int {
	if c.MaxStrlen < 1024 {
		return c.MaxStrlen + 1
	}
	return c.MaxStrlen
}
