// Agentlist prints the comments of the keys that the agent at SSH_AUTH_SOCK, or
// at its argument, has. The tests run it in a build step.
package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh/agent"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if len(os.Args) > 1 {
		socket = os.Args[1]
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	keys, err := agent.NewClient(conn).List()
	if err != nil {
		return err
	}
	for _, k := range keys {
		fmt.Println(k.Type())
	}
	return nil
}
