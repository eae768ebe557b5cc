package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// registryFlags are the same for every command that talks to a registry. The
// names are kaniko's.
type registryFlags struct {
	InsecureRegistry            []string `sep:"none" help:"HOST[:PORT] that may be asked over http or with any certificate."`
	Insecure                    bool     `help:"The same for every registry that is pushed to."`
	InsecurePull                bool     `help:"The same for every registry that base images come from."`
	SkipTLSVerifyRegistry       []string `name:"skip-tls-verify-registry" sep:"none" help:"HOST[:PORT] whose certificate is not verified."`
	SkipTLSVerify               bool     `name:"skip-tls-verify" help:"The same for every registry that is pushed to."`
	SkipTLSVerifyPull           bool     `name:"skip-tls-verify-pull" help:"The same for every registry that base images come from."`
	RegistryMirror              []string `sep:"none" help:"HOST[/PATH] to ask for images of docker.io first."`
	RegistryMap                 []string `sep:"none" help:"REGISTRY=MIRROR[;...] to ask for images of REGISTRY first."`
	SkipDefaultRegistryFallback bool     `help:"Ask mirrors only."`
	RegistryCertificate         []string `sep:"none" help:"REGISTRY=FILE of a certificate authority to trust."`
	RegistryClientCert          []string `sep:"none" help:"REGISTRY=CERTIFICATE,KEY to log in with."`
	CredentialHelpers           []string `sep:"none" help:"Built-in sources of credentials: env, gitlab, google, ecr, acr, github (default: all; empty: none)."`
	PushRetry                   int      `default:"5" help:"How often a failed request is tried again."`
	PushRetryInitialDelay       int64    `default:"1000" help:"Milliseconds before the first retry; it doubles each time."`
	PushRetryMaxDelay           int64    `default:"30000" help:"Most milliseconds between two tries."`
	Verbose                     bool     `help:"Print diagnostics to standard error."`
}

// registries is what the flags say. What kaniko reads from variables, they are
// asked for where there is no flag.
func (f registryFlags) registries(w *World) (build.Registries, error) {
	r := build.Registries{
		MirrorsOnly: f.SkipDefaultRegistryFallback,
		Insecure:    splitList(f.InsecureRegistry), InsecurePull: f.InsecurePull, InsecurePush: f.Insecure,
		SkipVerify: splitList(f.SkipTLSVerifyRegistry), SkipVerifyPull: f.SkipTLSVerifyPull, SkipVerifyPush: f.SkipTLSVerify,
		CredentialHelpers: f.helpers(),
	}
	var err error
	if r.Retry, err = f.retry(); err != nil {
		return r, err
	}
	r.Mirrors = splitList(orVariable(w, f.RegistryMirror, "KANIKO_REGISTRY_MIRROR"))
	if r.Maps, err = registryMaps(orVariable(w, f.RegistryMap, "KANIKO_REGISTRY_MAP")); err != nil {
		return r, err
	}
	if r.Certificates, err = pairs("registry-certificate", splitLines(f.RegistryCertificate), nil); err != nil {
		return r, err
	}
	r.ClientCerts, err = clientCerts(f.RegistryClientCert)
	return r, err
}

func orVariable(w *World, values []string, name string) []string {
	if len(values) > 0 {
		return values
	}
	return []string{w.Getenv(name)}
}

func (f registryFlags) retry() (build.Retry, error) {
	if f.PushRetry < 0 || f.PushRetryInitialDelay < 0 || f.PushRetryMaxDelay < 0 {
		return build.Retry{}, usagef("--push-retry, --push-retry-initial-delay and --push-retry-max-delay cannot be negative")
	}
	count := f.PushRetry
	if count == 0 {
		count = -1 // 0 is the default to those who read it
	}
	return build.Retry{
		Count:        count,
		InitialDelay: time.Duration(f.PushRetryInitialDelay) * time.Millisecond,
		MaxDelay:     time.Duration(f.PushRetryMaxDelay) * time.Millisecond,
	}, nil
}

// helpers are the sources of credentials; nil is all of them. kaniko says so,
// too, and an empty value is none.
func (f registryFlags) helpers() []string {
	if f.CredentialHelpers == nil {
		return nil
	}
	out := append([]string{}, splitList(f.CredentialHelpers)...)
	if slices.Contains(out, "default") || slices.Contains(out, "all") {
		return nil
	}
	return out
}

// registryMaps reads REGISTRY=MIRROR[;REGISTRY=MIRROR].
func registryMaps(values []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, line := range splitLines(values) {
		for rule := range strings.SplitSeq(line, ";") {
			from, to, ok := strings.Cut(strings.TrimSpace(rule), "=")
			if !ok || from == "" || to == "" {
				return nil, usagef("--registry-map %q: want REGISTRY=MIRROR[;REGISTRY=MIRROR]", line)
			}
			out[from] = append(out[from], to)
		}
	}
	return out, nil
}

// clientCerts reads REGISTRY=CERTIFICATE,KEY.
func clientCerts(values []string) (map[string]build.ClientCert, error) {
	out := map[string]build.ClientCert{}
	for _, v := range splitLines(values) {
		host, files, _ := strings.Cut(v, "=")
		cert, key, ok := strings.Cut(files, ",")
		if !ok || host == "" || cert == "" || key == "" {
			return nil, usagef("--registry-client-cert %q: want REGISTRY=CERTIFICATE,KEY", v)
		}
		out[host] = build.ClientCert{Cert: cert, Key: key}
	}
	return out, nil
}

// newClient is for one command's requests.
func newClient(w *World, r build.Registries, verbose bool) (*registry.Client, error) {
	certs := map[string]registry.ClientCert{}
	for host, c := range r.ClientCerts {
		certs[host] = registry.ClientCert(c)
	}
	logins, err := logins(w.Getenv)
	if err != nil {
		return nil, err
	}
	client, err := registry.New(registry.Options{
		Logins:  logins,
		Mirrors: r.Mirrors, Maps: r.Maps, SkipDefaultFallback: r.MirrorsOnly,
		Certificates: r.Certificates, ClientCerts: certs,
		Insecure: r.Insecure, InsecurePull: r.InsecurePull, InsecurePush: r.InsecurePush,
		SkipVerifyRegistries: r.SkipVerify, SkipVerifyPull: r.SkipVerifyPull, SkipVerifyPush: r.SkipVerifyPush,
		CredentialHelpers: r.CredentialHelpers,
		Retry:             registry.Retry(r.Retry),
		UserAgent:         "kaniko-multiarch/" + Version,
		Getenv:            w.Getenv,
		Log:               debugLog(w, verbose),
	})
	if err != nil {
		return nil, &usage{err}
	}
	return client, nil
}
