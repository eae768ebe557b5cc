package merge

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
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
			m.problem("%s: %s is %s, which a Docker manifest list (oci-mode=docker) cannot hold; use oci-mode=auto or oci", c.source, c.desc.Digest, c.desc.MediaType)
		}
		return dockerList
	case ModeOCI:
		for _, c := range docker {
			if err := c.convert(); err != nil {
				m.problem("%s: converting %s to OCI: %v", c.source, c.built, err)
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
			names = append(names, c.source.String())
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
	return c.rewrite(manifest)
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

// assemble makes the bytes of the index. Equal images, annotations and mode give
// equal bytes: the children are sorted, maps are encoded in order, and no clock
// is read.
func (m *merger) assemble(mediaType string) (result, error) {
	if m.opts.SingleManifest && m.single() {
		c := m.children[0]
		return result{mediaType: c.desc.MediaType, data: c.manifest, digest: c.desc.Digest}, nil
	}
	index := ocispecs.Index{MediaType: mediaType, ArtifactType: m.opts.ArtifactType, Subject: m.subject, Annotations: m.indexAnnotations(mediaType)}
	index.SchemaVersion = 2
	kept := m.kept()
	if kept != nil {
		index.ArtifactType = cmp.Or(index.ArtifactType, kept.index.ArtifactType)
		if index.Subject == nil {
			index.Subject = kept.index.Subject
		}
	}
	for _, c := range m.children {
		index.Manifests = append(index.Manifests, c.desc)
	}
	for _, a := range m.attached {
		index.Manifests = append(index.Manifests, a.desc)
	}
	if len(index.Annotations) == 0 {
		index.Annotations = nil
	}
	data, err := encode(index)
	if err != nil {
		return result{}, err
	}
	// An index that nothing was changed of keeps its digest, and with it its
	// signatures.
	if kept != nil && equal(index, *kept.index, kept.desc.MediaType) {
		data = kept.raw
	}
	return result{mediaType: mediaType, data: data, digest: digest.FromBytes(data), annotations: index.Annotations}, nil
}

// single tells whether there is nothing that only an index could hold.
func (m *merger) single() bool {
	switch {
	case len(m.children) != 1 || len(m.attached) > 0 || m.children[0].manifest == nil:
		m.warnings = append(m.warnings, "the result is an index: a manifest alone holds one image that was pushed, without attestations")
	case len(m.annotations.index)+len(m.children[0].desc.Annotations) > 0 || m.subject != nil || m.opts.ArtifactType != "":
		m.warnings = append(m.warnings, "the result is an index: a manifest alone cannot hold what was asked for the index (annotations, subject, artifact type)")
	default:
		return true
	}
	return false
}

// equal compares indexes but for the order of their entries and white space.
func equal(a, b ocispecs.Index, mediaType string) bool {
	b.MediaType = mediaType
	for _, i := range []*ocispecs.Index{&a, &b} {
		i.Manifests = slices.Clone(i.Manifests)
		slices.SortFunc(i.Manifests, func(x, y ocispecs.Descriptor) int { return cmp.Compare(x.Digest, y.Digest) })
		if len(i.Annotations) == 0 {
			i.Annotations = nil
		}
	}
	left, errA := encode(a)
	right, errB := encode(b)
	return errA == nil && errB == nil && bytes.Equal(left, right)
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
