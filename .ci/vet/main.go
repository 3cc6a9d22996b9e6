// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Vet does what go vet ./... does, tests included, for each platform given:
//
//	go run . -dir ../.. linux/arm64 windows/amd64
//
// It reads dependencies from source, where go vet compiles them: the standard
// library for one platform takes that close to a minute, and there are over
// forty platforms.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/analysis/passes/appends"
	"golang.org/x/tools/go/analysis/passes/asmdecl"
	"golang.org/x/tools/go/analysis/passes/assign"
	"golang.org/x/tools/go/analysis/passes/atomic"
	"golang.org/x/tools/go/analysis/passes/bools"
	"golang.org/x/tools/go/analysis/passes/buildtag"
	"golang.org/x/tools/go/analysis/passes/cgocall"
	"golang.org/x/tools/go/analysis/passes/composite"
	"golang.org/x/tools/go/analysis/passes/copylock"
	"golang.org/x/tools/go/analysis/passes/defers"
	"golang.org/x/tools/go/analysis/passes/directive"
	"golang.org/x/tools/go/analysis/passes/errorsas"
	"golang.org/x/tools/go/analysis/passes/framepointer"
	"golang.org/x/tools/go/analysis/passes/hostport"
	"golang.org/x/tools/go/analysis/passes/httpresponse"
	"golang.org/x/tools/go/analysis/passes/ifaceassert"
	"golang.org/x/tools/go/analysis/passes/loopclosure"
	"golang.org/x/tools/go/analysis/passes/lostcancel"
	"golang.org/x/tools/go/analysis/passes/nilfunc"
	"golang.org/x/tools/go/analysis/passes/printf"
	"golang.org/x/tools/go/analysis/passes/shift"
	"golang.org/x/tools/go/analysis/passes/sigchanyzer"
	"golang.org/x/tools/go/analysis/passes/slog"
	"golang.org/x/tools/go/analysis/passes/stdmethods"
	"golang.org/x/tools/go/analysis/passes/stdversion"
	"golang.org/x/tools/go/analysis/passes/stringintconv"
	"golang.org/x/tools/go/analysis/passes/structtag"
	"golang.org/x/tools/go/analysis/passes/testinggoroutine"
	"golang.org/x/tools/go/analysis/passes/tests"
	"golang.org/x/tools/go/analysis/passes/timeformat"
	"golang.org/x/tools/go/analysis/passes/unmarshal"
	"golang.org/x/tools/go/analysis/passes/unreachable"
	"golang.org/x/tools/go/analysis/passes/unsafeptr"
	"golang.org/x/tools/go/analysis/passes/unusedresult"
	"golang.org/x/tools/go/analysis/passes/waitgroup"
	"golang.org/x/tools/go/packages"
)

// analyzers are those of go vet (cmd/vet/main.go of Go 1.26).
var analyzers = []*analysis.Analyzer{
	appends.Analyzer,
	asmdecl.Analyzer,
	assign.Analyzer,
	atomic.Analyzer,
	bools.Analyzer,
	buildtag.Analyzer,
	cgocall.Analyzer,
	composite.Analyzer,
	copylock.Analyzer,
	defers.Analyzer,
	directive.Analyzer,
	errorsas.Analyzer,
	framepointer.Analyzer,
	hostport.Analyzer,
	httpresponse.Analyzer,
	ifaceassert.Analyzer,
	loopclosure.Analyzer,
	lostcancel.Analyzer,
	nilfunc.Analyzer,
	printf.Analyzer,
	shift.Analyzer,
	sigchanyzer.Analyzer,
	slog.Analyzer,
	stdmethods.Analyzer,
	stdversion.Analyzer,
	stringintconv.Analyzer,
	structtag.Analyzer,
	testinggoroutine.Analyzer,
	tests.Analyzer,
	timeformat.Analyzer,
	unmarshal.Analyzer,
	unreachable.Analyzer,
	unsafeptr.Analyzer,
	unusedresult.Analyzer,
	waitgroup.Analyzer,
}

// atOnce is how many platforms are checked at once; each takes some 300 MB.
const atOnce = 2

func main() {
	dir := flag.String("dir", ".", "the module's `directory`")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "vet: no platform given")
		os.Exit(2)
	}
	failed := false
	var mu sync.Mutex // of failed and of the output
	var wg sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, platform := range flag.Args() {
		places <- struct{}{}
		wg.Go(func() {
			report, err := vet(*dir, platform)
			<-places
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				fmt.Println("ok     ", platform)
				return
			}
			fmt.Printf("FAILED  %s: %v\n%s", platform, err, report)
			failed = true
		})
	}
	wg.Wait()
	if failed {
		os.Exit(1)
	}
}

// needsCgo ends what the go command says of programs for Android and iOS, which
// it cannot link without a C compiler for them. Nothing is linked here.
const needsCgo = "requires external (cgo) linking, but cgo is not enabled"

// vet checks the module in dir for one platform and reports what is wrong.
func vet(dir, platform string) (report string, err error) {
	goos, goarch, ok := strings.Cut(platform, "/")
	if !ok {
		return "", fmt.Errorf("not GOOS/GOARCH")
	}
	pkgs, err := packages.Load(&packages.Config{
		Dir:   dir,
		Mode:  packages.LoadAllSyntax,
		Tests: true,
		Env:   append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0"),
	}, "./...")
	if err != nil {
		return "", err
	}
	if len(pkgs) == 0 {
		return "", fmt.Errorf("no packages")
	}
	var out bytes.Buffer
	packages.Visit(pkgs, nil, func(p *packages.Package) {
		for _, e := range p.Errors {
			if !strings.HasSuffix(e.Msg, needsCgo) {
				fmt.Fprintln(&out, e)
			}
		}
		p.IllTyped = false // needsCgo alone makes it true
	})
	if out.Len() > 0 {
		return out.String(), fmt.Errorf("does not build")
	}
	graph, err := checker.Analyze(analyzers, pkgs, nil)
	if err != nil {
		return "", err
	}
	for _, a := range graph.Roots {
		if a.Err != nil || len(a.Diagnostics) > 0 {
			err = fmt.Errorf("vet")
		}
	}
	if err != nil {
		graph.PrintText(&out, -1)
	}
	return out.String(), err
}
