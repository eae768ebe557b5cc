package ci

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Console is the log of a step in GitHub Actions, which takes lines in it for
// commands. What is written is text and never a command, whoever wrote it: a
// Dockerfile's step cannot mask, set or stop anything. Commands are its methods.
// It is safe for concurrent use.
type Console struct {
	mu sync.Mutex
	w  io.Writer
	// token starts commands again. It is made with the first text, and not sooner:
	// the process that builds may be a child, with a console of its own.
	token string
	// open is set within a line.
	open bool
}

// NewConsole writes to w.
func NewConsole(w io.Writer) *Console { return &Console{w: w} }

// Write writes text.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if c.token == "" {
		c.token = rand.Text()
		fmt.Fprintf(c.w, "::stop-commands::%s\n", c.token)
	}
	c.open = p[len(p)-1] != '\n'
	return c.w.Write(p)
}

// Close lets commands through again.
func (c *Console) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == "" {
		return
	}
	c.line()
	fmt.Fprintf(c.w, "::%s::\n", c.token)
	c.token = ""
}

// Mask keeps a value out of the log from here on, each line of it. Lines so
// short that they are parts of words are left.
func (c *Console) Mask(value string) {
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); len(line) > 3 {
			c.command("add-mask", "", line)
		}
	}
}

// Group begins lines that can be folded, EndGroup ends them.
func (c *Console) Group(title string) { c.command("group", "", title) }

// EndGroup is there for Group.
func (c *Console) EndGroup() { c.command("endgroup", "", "") }

// Say shows a text on the page of the run. The level is notice, warning or error.
func (c *Console) Say(level, text string) { c.command(level, "", text) }

// Annotate shows a text at a line of a file. The level is notice, warning or
// error; the title may be empty.
func (c *Console) Annotate(level, file string, line int, title, text string) {
	properties := fmt.Sprintf("file=%s,line=%d", property.Replace(file), line)
	if title != "" {
		properties += ",title=" + property.Replace(title)
	}
	c.command(level, properties, text)
}

// Commands are %-encoded as the runner reads them.
var (
	data     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func (c *Console) command(name, properties, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if properties != "" {
		properties = " " + properties
	}
	text := fmt.Sprintf("::%s%s::%s\n", name, properties, data.Replace(value))
	if c.token != "" {
		c.line()
		text = fmt.Sprintf("::%s::\n%s::stop-commands::%s\n", c.token, text, c.token)
	}
	io.WriteString(c.w, text)
}

// line ends a line that is open: a command begins one.
func (c *Console) line() {
	if c.open {
		io.WriteString(c.w, "\n")
	}
	c.open = false
}
