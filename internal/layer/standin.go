package layer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/kaniko-multiarch/internal/ids"
)

// StandInRoot starts the text of a stand-in for what root outside of a user
// namespace could make.
const StandInRoot = "root: "

// StandsFor returns an *ids.MissingError when name is a stand-in, marked with the
// extended attribute attr: a user namespace can neither make devices nor files
// of owners that it does not have, nor some attributes. A base layer that is
// unpacked there has a file that root owns instead. As long as nobody changes or
// copies such a file no image is wrong: base layers are published as they came.
func StandsFor(name, attr string) error {
	text, err := getXattr(name, attr)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the extended attribute %s of %q: %w", attr, name, err)
	}
	return standsFor(string(text))
}

func standsFor(text string) error {
	what, root := strings.CutPrefix(text, StandInRoot)
	return &ids.MissingError{What: what, Root: root}
}
