package cli

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

const boolKind = reflect.Bool

// inputs gives a flag that is not on the command line the value of its GitHub
// input (INPUT_<NAME>, hyphens kept), then of its environment variable
// (KANIKO_MULTIARCH_<NAME>). An empty value is unset.
func inputs(getenv func(string) string) kong.ResolverFunc {
	return func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if flag.Name == "help" {
			return nil, nil
		}
		names := spellings(flag.Name)
		for _, variable := range []func(string) string{inputVariable, environmentVariable} {
			found, value := "", ""
			for _, n := range names {
				v := getenv(variable(n))
				if strings.TrimSpace(v) == "" {
					continue
				}
				if found != "" {
					return nil, fmt.Errorf("%s and %s are both set: set one", found, variable(n))
				}
				found, value = variable(n), v
			}
			if found == "" {
				continue
			}
			if flag.IsBool() {
				return value, nil
			}
			if !flag.IsSlice() {
				return strings.TrimSpace(value), nil
			}
			list, err := records(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", found, err)
			}
			return anys(list), nil
		}
		return nil, nil
	}
}

func inputVariable(name string) string { return "INPUT_" + strings.ToUpper(name) }

func environmentVariable(name string) string {
	return "KANIKO_MULTIARCH_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// strictBool takes the spellings of YAML 1.2's core schema and nothing else, so
// that a typing error is not a false.
type strictBool struct{}

func (strictBool) IsBoolFlag() bool { return true }
func (strictBool) IsBool() bool     { return true }

func (strictBool) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	token := ctx.Scan.Pop()
	switch v := token.Value.(type) {
	case bool:
		target.SetBool(v)
		return nil
	case string:
		switch v {
		case "true", "True", "TRUE":
			target.SetBool(true)
			return nil
		case "false", "False", "FALSE":
			target.SetBool(false)
			return nil
		}
	}
	return fmt.Errorf("%q is not a boolean: use true or false", fmt.Sprint(token.Value))
}

// spellings are the names of a flag: its own, then its aliases.
func spellings(flag string) []string {
	names := []string{flag}
	for alias, name := range aliases {
		if name == "--"+flag {
			names = append(names, strings.TrimPrefix(alias, "--"))
		}
	}
	slices.Sort(names[1:])
	return names
}

func anys(list []string) []any {
	var out []any
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// splitList splits values at newlines and commas. A value can also be a JSON
// list, which is what becomes of GitLab's arrays in a text.
func splitList(values []string) []string {
	var out []string
	for _, v := range values {
		var list []string
		if err := json.Unmarshal([]byte(v), &list); err == nil && list != nil {
			out = append(out, split(list, "\r\n,")...)
			continue
		}
		out = append(out, split([]string{v}, "\r\n,")...)
	}
	return out
}

// splitLines splits values at newlines. Build arguments and labels are taken as
// they are: a newline may be part of them.
func splitLines(values []string) []string { return split(values, "\r\n") }

func split(values []string, separators string) []string {
	var out []string
	for _, v := range values {
		for _, part := range strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// pairs reads NAME=VALUE. bare gives the value of a NAME alone; nil makes
// that an error.
func pairs(flag string, values []string, bare func(string) (string, bool)) (map[string]string, error) {
	out := map[string]string{}
	for _, line := range values {
		name, value, ok := strings.Cut(line, "=")
		if name == "" {
			return nil, usagef("--%s %q: want NAME=VALUE", flag, line)
		}
		if !ok {
			if bare == nil {
				return nil, usagef("--%s %q: want NAME=VALUE", flag, line)
			}
			if value, ok = bare(name); !ok {
				continue
			}
		}
		out[name] = value
	}
	return out, nil
}
