// Command hello says where it was built and where it runs.
//
//	hello                 prints it
//	hello -listen :8080   tells it to everyone who connects
//	hello -check :8080    exits 0 if somebody listens there
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
)

func main() {
	listen := flag.String("listen", "", "`address` to serve on")
	check := flag.String("check", "", "`address` to try")
	flag.Parse()
	if err := run(*listen, *check); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(listen, check string) error {
	switch {
	case check != "":
		conn, err := net.Dial("tcp", check)
		if err != nil {
			return err
		}
		return conn.Close()
	case listen != "":
		return serve(listen)
	}
	return greet(os.Stdout)
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			greet(conn)
		}()
	}
}

// greet tells what the program knows (where it was compiled for) and what the
// image knows: the file that a RUN wrote while it ran on the target platform.
func greet(w io.Writer) error {
	machine, err := os.ReadFile("/etc/hello/machine")
	if err != nil {
		return err
	}
	motd, err := os.ReadFile("/etc/hello/motd")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s from %s/%s: this image's RUN saw %s, I am uid %d\n%s",
		os.Getenv("GREETING"), runtime.GOOS, runtime.GOARCH, strings.TrimSpace(string(machine)), os.Getuid(), motd)
	return err
}
