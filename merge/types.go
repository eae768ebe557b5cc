package merge

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types: distribution, "Image Manifest Version 2, Schema 2".
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayers   = "application/vnd.docker.image.rootfs."
)

func isImage(t string) bool  { return t == ocispecs.MediaTypeImageManifest || t == dockerManifest }
func isIndex(t string) bool  { return t == ocispecs.MediaTypeImageIndex || t == dockerList }
func isConfig(t string) bool { return t == ocispecs.MediaTypeImageConfig || t == dockerConfig }

// settleTypes decides between OCI index and Docker list, and converts images
// where the mode says so.
func (m *merger) settleTypes() string {
	var docker, oci []*child
	for _, c := range m.children {
		switch {
		case c.desc.Digest == "":
			// Not readable, which is a problem already.
		case c.desc.MediaType == dockerManifest:
			docker = append(docker, c)
		default:
			oci = append(oci, c)
		}
	}
	switch m.opts.OCIMode {
	case ModeDocker:
		for _, c := range oci {
			m.problem("%s: %s is %s, which a Docker manifest list (oci-mode=docker) cannot hold; use oci-mode=auto or oci", c.found, c.desc.Digest, c.desc.MediaType)
		}
		return dockerList
	case ModeOCI:
		for _, c := range docker {
			if err := c.convert(); err != nil {
				m.problem("%s: converting %s to OCI: %v", c.found, c.found.Record.Digest, err)
			}
		}
		return ocispecs.MediaTypeImageIndex
	}
	if len(docker) > 0 && len(oci) == 0 {
		return dockerList
	}
	if len(docker) > 0 {
		var names []string
		for _, c := range docker {
			names = append(names, c.found.String())
		}
		m.notice("the OCI index holds images of Docker's media type (oci-mode=oci converts them): %s", strings.Join(names, ", "))
	}
	return ocispecs.MediaTypeImageIndex
}

// convert rewrites a Docker manifest as an OCI one. The blobs stay what they
// are: only the names of their types differ.
func (c *child) convert() error {
	if c.manifest == nil {
		return fmt.Errorf("the image was not pushed, so there is no manifest to convert; leave oci-mode at auto")
	}
	var manifest ocispecs.Manifest
	if err := json.Unmarshal(c.manifest, &manifest); err != nil {
		return err
	}
	manifest.MediaType = ocispecs.MediaTypeImageManifest
	manifest.Config.MediaType = ocispecs.MediaTypeImageConfig
	for i, layer := range manifest.Layers {
		t, err := ociLayer(layer.MediaType)
		if err != nil {
			return err
		}
		manifest.Layers[i].MediaType = t
	}
	data, err := encode(manifest)
	if err != nil {
		return err
	}
	c.manifest, c.converted = data, true
	c.desc.MediaType = manifest.MediaType
	c.desc.Digest = digest.FromBytes(data)
	c.desc.Size = int64(len(data))
	return nil
}

func ociLayer(t string) (string, error) {
	if strings.HasPrefix(t, "application/vnd.oci.image.layer.") {
		return t, nil
	}
	short, _ := strings.CutPrefix(t, dockerLayers)
	switch short {
	case "diff.tar":
		return ocispecs.MediaTypeImageLayer, nil
	case "diff.tar.gzip":
		return ocispecs.MediaTypeImageLayerGzip, nil
	case "diff.tar.zstd":
		return ocispecs.MediaTypeImageLayerZstd, nil
	case "foreign.diff.tar.gzip":
		return "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", nil
	}
	return "", fmt.Errorf("layer type %q has no OCI counterpart; use oci-mode=auto", t)
}

// index is the bytes of the index. Equal images, annotations and mode give
// equal bytes: the children are sorted, maps are encoded in order, and no clock
// is read.
func (m *merger) index(mediaType string) ([]byte, error) {
	index := ocispecs.Index{MediaType: mediaType, Annotations: m.annotations.index}
	index.SchemaVersion = 2
	for _, c := range m.children {
		index.Manifests = append(index.Manifests, c.desc)
	}
	if len(index.Annotations) == 0 {
		index.Annotations = nil
	}
	return encode(index)
}

// encode leaves <, > and & in annotations readable, unlike json.Marshal.
func encode(v any) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}
