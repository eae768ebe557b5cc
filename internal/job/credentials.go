package job

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/sshagent"
)

// secrets packs the build's own secrets.
func (p *packer) secrets() {
	p.request.Options.Secrets = nil
	for _, s := range p.in.Secrets {
		p.request.Options.Secrets = append(p.request.Options.Secrets, build.Secret{ID: s.ID, File: p.hide("secret", p.Secrets[s.ID])})
	}
}

// agents packs the keys of SSH agents. A socket leads to a process of this machine.
func (p *packer) agents() error {
	p.request.Options.SSH = nil
	for _, s := range p.in.SSH {
		socket := len(s.Paths) == 0
		for _, file := range s.Paths {
			info, err := os.Stat(file)
			socket = socket || err == nil && info.Mode()&os.ModeSocket != 0
		}
		if socket {
			return inputf("--ssh %s: an agent's socket does not reach into a Job: give a key file: --ssh %s=FILE", s.ID, s.ID)
		}
		// The pod could only say the same, later.
		if _, err := sshagent.Open([]sshagent.Source{sshagent.Source(s)}, func(string) string { return "" }); err != nil {
			return inputf("--ssh: %w", err)
		}
		keys := build.SSH{ID: s.ID}
		for _, file := range s.Paths {
			data, err := os.ReadFile(file)
			if err != nil {
				return inputf("--ssh %s: %w", s.ID, err)
			}
			keys.Paths = append(keys.Paths, p.hide("ssh", data))
		}
		p.request.Options.SSH = append(p.request.Options.SSH, keys)
	}
	return nil
}

// certificates packs the files of authorities, which are public, and those that log
// in: a file of a certificate can have its key, too.
func (p *packer) certificates() error {
	r := &p.request.Options.Registries
	if p.in.Registries.Certificates != nil {
		r.Certificates = map[string]string{}
	}
	for i, host := range slices.Sorted(maps.Keys(p.in.Registries.Certificates)) {
		data, err := os.ReadFile(p.in.Registries.Certificates[host])
		if err != nil {
			return inputf("--registry-certificate %s: %w", host, err)
		}
		if data = publicOnly(data); len(data) == 0 {
			return inputf("--registry-certificate %s: %s holds no certificate in PEM", host, p.in.Registries.Certificates[host])
		}
		r.Certificates[host] = p.file(path.Join(FilesDir, fmt.Sprintf("authority-%d.pem", i)), data)
	}
	if p.in.Registries.ClientCerts != nil {
		r.ClientCerts = map[string]build.ClientCert{}
	}
	for _, host := range slices.Sorted(maps.Keys(p.in.Registries.ClientCerts)) {
		from := p.in.Registries.ClientCerts[host]
		cert, err := os.ReadFile(from.Cert)
		if err != nil {
			return inputf("--registry-client-cert %s: %w", host, err)
		}
		key, err := os.ReadFile(from.Key)
		if err != nil {
			return inputf("--registry-client-cert %s: %w", host, err)
		}
		r.ClientCerts[host] = build.ClientCert{Cert: p.hide("client-certificate", cert), Key: p.hide("client-key", key)}
	}
	return nil
}

// file adds a file to the request, by its path in the build's working directory.
func (p *packer) file(name string, data []byte) string {
	p.request.Files[name] = data
	return name
}

// publicOnly keeps the certificates of a file.
func publicOnly(data []byte) []byte {
	var out bytes.Buffer
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return out.Bytes()
		}
		if strings.HasSuffix(block.Type, "CERTIFICATE") {
			_ = pem.Encode(&out, block) // a buffer takes everything
		}
		data = rest
	}
}
