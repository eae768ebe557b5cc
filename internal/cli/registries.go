package cli

import (
	"strings"

	"github.com/org/kaniko-multiarch/internal/registry"
)

// kanikoRegistry is what kaniko's flags say about registries and ours do not.
type kanikoRegistry struct {
	insecurePull, insecurePush     bool
	skipVerifyPull, skipVerifyPush bool
	skipVerify                     []string
	// helpers are nil for all.
	helpers []string
	maps    map[string][]string
}

// mirrors reads the mirrors of docker.io, and those of other registries into
// f.maps. Without a flag they are kaniko's variables.
func (f *registryFlags) mirrors(w *World) ([]string, error) {
	mirrors, maps := splitList(f.RegistryMirror), splitLines(f.RegistryMap)
	if len(mirrors) == 0 {
		mirrors = splitList([]string{w.Getenv("KANIKO_REGISTRY_MIRROR")})
	}
	if len(maps) == 0 {
		maps = splitLines([]string{w.Getenv("KANIKO_REGISTRY_MAP")})
	}
	f.maps = map[string][]string{}
	for _, line := range maps {
		for rule := range strings.SplitSeq(line, ";") {
			from, to, ok := strings.Cut(strings.TrimSpace(rule), "=")
			if !ok || from == "" || to == "" {
				return nil, usagef("--registry-map %q: want REGISTRY=MIRROR[;REGISTRY=MIRROR]", line)
			}
			f.maps[from] = append(f.maps[from], to)
		}
	}
	return mirrors, nil
}

// clientCerts reads REGISTRY=CERTIFICATE,KEY.
func clientCerts(values []string) (map[string]registry.ClientCert, error) {
	out := map[string]registry.ClientCert{}
	for _, v := range splitLines(values) {
		host, files, _ := strings.Cut(v, "=")
		cert, key, ok := strings.Cut(files, ",")
		if !ok || host == "" || cert == "" || key == "" {
			return nil, usagef("--registry-client-cert %q: want REGISTRY=CERTIFICATE,KEY", v)
		}
		out[host] = registry.ClientCert{Cert: cert, Key: key}
	}
	return out, nil
}
