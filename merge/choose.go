package merge

import (
	"slices"
	"strings"

	"github.com/org/kaniko-multiarch/internal/platform"
	"github.com/org/kaniko-multiarch/internal/record"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// choose takes the records of the key and checks them against each other, as
// far as that goes without a registry.
func (m *merger) choose() {
	var skipped []string
	for _, f := range m.opts.Records {
		key := f.Record.Key
		if m.opts.Key != "" && key != "" && key != m.opts.Key {
			if !slices.Contains(skipped, key) {
				skipped = append(skipped, key)
			}
			continue
		}
		m.children = append(m.children, newChild(f))
		if len(f.Superseded) > 0 {
			m.notice("%s replaces the earlier %s", f, strings.Join(f.Superseded, ", "))
		}
	}
	if len(skipped) > 0 {
		m.notice("skipped the records of other keys: %s", strings.Join(skipped, ", "))
	}
	switch {
	case len(m.children) > 0:
	case len(skipped) > 0:
		m.problem("no record of key %s; those found are of %s", m.opts.Key, strings.Join(skipped, ", "))
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

// agree checks that all records have the same value. An empty one matches: not
// every builder knows its revision or its CI run.
func (m *merger) agree(field, fix string, value func(record.Record) string) {
	var values []string
	files := map[string][]string{}
	for _, c := range m.children {
		if c.found.Bare() {
			continue
		}
		v := value(c.found.Record)
		if v != "" && !slices.Contains(values, v) {
			values = append(values, v)
		}
		files[v] = append(files[v], c.found.String())
	}
	if field == "key" && m.opts.Key != "" && !slices.Contains(values, m.opts.Key) && len(m.children) > 0 {
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
	for _, c := range m.children {
		if c.found.Bare() {
			bare = append(bare, c.found.String())
		}
		if !c.pushed() {
			unpushed = append(unpushed, c.found.String())
		}
	}
	if len(bare) > 0 {
		m.notice("a digest and nothing else, so its image, key, target, revision and run are unchecked: %s", strings.Join(bare, ", "))
	}
	switch {
	case len(unpushed) == 0:
	case len(unpushed) == len(m.children) && !m.opts.ExplicitPush:
		m.dryRun = true
		m.warnings = append(m.warnings, "no image was pushed, so this is a dry run: nothing is published and no image was looked at in the registry")
	case len(unpushed) == len(m.children):
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
	files := map[string][]string{}
	for _, c := range m.children {
		if c.platform.OS == "" {
			continue
		}
		name := platform.Format(c.platform)
		if files[name] == nil {
			order = append(order, name)
		}
		files[name] = append(files[name], c.found.String())
	}
	for _, name := range order {
		if len(files[name]) > 1 {
			m.problem("platform %s is there %d times: %s; keep one", name, len(files[name]), strings.Join(files[name], ", "))
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
		if files[name] == nil {
			m.problem("platform %s is missing: its build failed, or its record was not handed over", name)
		}
	}
	for _, name := range order {
		if !slices.Contains(expected, name) {
			m.problem("platform %s of %s is not expected: --platform names %s", name, strings.Join(files[name], ", "), strings.Join(expected, ","))
		}
	}
}
