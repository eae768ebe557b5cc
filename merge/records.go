package merge

import (
	"slices"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// chooseRecords takes the records of the key and checks them against each
// other, as far as that goes without a registry.
func (m *merger) chooseRecords() {
	others := len(m.sources)
	var skipped []string
	for _, f := range m.opts.Records {
		key := f.Record.Key
		if m.opts.Key != "" && key != "" && key != m.opts.Key {
			if !slices.Contains(skipped, key) {
				skipped = append(skipped, key)
			}
			continue
		}
		m.sources = append(m.sources, &source{found: f})
		if len(f.Superseded) > 0 {
			m.notice("%s replaces the earlier %s", f, strings.Join(f.Superseded, ", "))
		}
	}
	if len(skipped) > 0 {
		m.notice("skipped the records of other keys: %s", strings.Join(skipped, ", "))
	}
	switch {
	case len(m.records()) > 0:
	case len(skipped) > 0:
		m.problem("no record of key %s; those found are of %s", m.opts.Key, strings.Join(skipped, ", "))
	case others > 0:
	default:
		m.problem("no digest records: hand over the directory that the builds wrote with --digests-to (as --digests-from)")
	}

	m.agree("key", "choose one with --key", func(r record.Record) string { return r.Key })
	m.agree("image", "all platforms of an image are pushed to one repository", func(r record.Record) string {
		if ref, err := registry.ParseRef(r.Image); err == nil {
			return ref.Name()
		}
		return r.Image
	})
	m.agree("target", "build all platforms from one stage", func(r record.Record) string { return r.Target })
	m.agree("revision", "build all platforms from one commit", func(r record.Record) string { return r.Revision })
	m.agree("run", "remove the records of earlier runs", func(r record.Record) string { return r.Run })
	m.checkPushed()
}

// records are the sources that are records.
func (m *merger) records() []*source {
	return slices.DeleteFunc(slices.Clone(m.sources), func(s *source) bool { return !s.isRecord() })
}

// agree checks that all records have the same value. An empty one matches: not
// every builder knows its revision or its CI run.
func (m *merger) agree(field, fix string, value func(record.Record) string) {
	var values []string
	files := map[string][]string{}
	for _, s := range m.records() {
		if s.bare() {
			continue
		}
		v := value(s.found.Record)
		if v != "" && !slices.Contains(values, v) {
			values = append(values, v)
		}
		files[v] = append(files[v], s.String())
	}
	if field == "key" && m.opts.Key != "" && !slices.Contains(values, m.opts.Key) && len(m.records()) > 0 {
		m.notice("no record names key %s", m.opts.Key)
	}
	if len(values) > 1 {
		var parts []string
		for _, v := range values {
			parts = append(parts, v+" ("+strings.Join(files[v], ", ")+")")
		}
		m.problem("the records are of more than one %s: %s; %s", field, strings.Join(parts, ", "), fix)
	}
	if len(values) > 0 && len(files[""]) > 0 {
		m.notice("without %s, taken to match %s: %s", field, strings.Join(values, ", "), strings.Join(files[""], ", "))
	}
}

// checkPushed turns a merge of images that were all built without a push, as
// on pull requests from forks, into a dry run.
func (m *merger) checkPushed() {
	var bare, unpushed []string
	for _, s := range m.records() {
		if s.bare() {
			bare = append(bare, s.String())
		}
		if !s.pushed() {
			unpushed = append(unpushed, s.String())
		}
	}
	if len(bare) > 0 {
		m.notice("a digest and nothing else, so its image, key, target, revision and run are unchecked: %s", strings.Join(bare, ", "))
	}
	switch {
	case len(unpushed) == 0:
	case len(unpushed) == len(m.records()) && !m.opts.ExplicitPush:
		m.dryRun, m.unpushed = true, true
		m.warnings = append(m.warnings, "no image was pushed, so this is a dry run: nothing is published and no image was looked at in the registry")
	case len(unpushed) == len(m.records()):
		m.problem("a push is demanded but no image was pushed: %s; build with push, or leave merge's push unset", strings.Join(unpushed, ", "))
	default:
		m.problem("not pushed, unlike the others: %s; build all platforms with push, or none", strings.Join(unpushed, ", "))
	}
}

// checkPlatforms compares the platforms found with those expected. It reports
// only what is known: an image that could not be read counts with the platform
// of its record.
func (m *merger) checkPlatforms() {
	var order []string
	found := map[string][]*child{}
	for _, c := range m.children {
		if c.platform.OS == "" {
			continue
		}
		// Two versions of Windows are two platforms.
		name := c.name()
		if found[name] == nil {
			order = append(order, name)
		}
		found[name] = append(found[name], c)
	}
	for _, name := range order {
		if n := len(found[name]); n > 1 {
			m.problem("platform %s is there %d times: %s; keep one", name, n, sourcesOf(found[name]))
		}
	}
	if len(m.opts.Platforms) == 0 {
		if len(order) > 0 {
			m.notice("platforms found: %s; name them with --platform to be sure that none is missing", strings.Join(order, ","))
		}
		return
	}
	var expected []string
	for _, p := range m.opts.Platforms {
		name := platform.Format(p)
		expected = append(expected, name)
		if !slices.ContainsFunc(m.children, func(c *child) bool { return c.platform.OS != "" && same(p, c.full()) }) {
			m.problem("platform %s is missing: its build failed, or its record was not handed over", name)
		}
	}
	for _, name := range order {
		c := found[name][0]
		if slices.ContainsFunc(m.opts.Platforms, func(p ocispecs.Platform) bool { return same(p, c.full()) }) {
			continue
		}
		fix := ""
		if c.source.existing {
			fix = "; name it, too, or --remove it"
		}
		m.problem("platform %s of %s is not expected: --platform names %s%s", name, sourcesOf(found[name]), strings.Join(expected, ","), fix)
	}
}

func sourcesOf(children []*child) string {
	var names []string
	for _, c := range children {
		names = append(names, c.source.String())
	}
	return strings.Join(names, ", ")
}
