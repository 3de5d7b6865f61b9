package gopherpack_test

import (
	"bytes"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// paper is a document: its lines, those of code blocks apart.
type paper struct {
	path   string
	prose  string   // without code blocks
	blocks []string // the fenced ones, "go\n..." for instance
}

// papers reads all documents.
func papers(t *testing.T) (all []paper) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if err == nil && filepath.Ext(path) == ".md" {
			all = append(all, readPaper(t, path))
		}
		return err
	})
	if err != nil || len(all) < 10 {
		t.Fatalf("%d papers: %v", len(all), err)
	}
	return all
}

func readPaper(t *testing.T, path string) paper {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := paper{path: path}
	for i, part := range strings.Split(string(text), "```") {
		if i%2 == 0 {
			p.prose += part
		} else {
			p.blocks = append(p.blocks, part)
		}
	}
	return p
}

// TestWidth finds lines of more than 120 columns, but for tables.
func TestWidth(t *testing.T) {
	for _, p := range papers(t) {
		text, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(line, "\n")
			if utf8.RuneCountInString(line) > 120 && !strings.HasPrefix(strings.TrimSpace(line), "|") {
				t.Errorf("%s: a line of more than 120 columns: %s", p.path, line)
			}
		}
	}
}

var (
	linkTo  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// anchors returns what can stand after the # of a link to a paper, as GitHub makes it of headings.
func anchors(p paper) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(p.prose, -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1]))
	}
	return all
}

// TestLinks follows each link from a document to a file of this module, and to a heading in it.
func TestLinks(t *testing.T) {
	for _, p := range papers(t) {
		for _, m := range linkTo.FindAllStringSubmatch(p.prose, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := p.path
			if target != "" {
				path = filepath.Join(filepath.Dir(p.path), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: link to %s: %v", p.path, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(readPaper(t, path)), anchor) {
				t.Errorf("%s: link to %s: no such heading", p.path, m[1])
			}
		}
	}
}

// prelude is what the papers' pieces of code take for granted.
const prelude = `
var (
	ctx                   context.Context
	redirect, site        http.Handler
	status, debugServer   *http.Server
	tlsConfig             *tls.Config
	grpcServer            *grpc.Server
	p                     *pack.Pack
	cmd                   *exec.Cmd
	dns                   pack.PacketServer
	http3                 pack.QUICServer
	answer                func([]byte) []byte
	serve                 func(net.PacketConn, *pack.QUIC) error
	shutdown              func(context.Context) error
)
`

// imports are the packages that they use.
var imports = []string{
	"context", "crypto/tls", "errors", "fmt", "log", "net", "net/http", "os/exec", "syscall", "time",
	"golang.org/x/net/netutil", "golang.org/x/sys/unix", "google.golang.org/grpc",
	module + "/affinity", module + "/ebpf/steer", module + "/pack", module + "/procgroup", module + "/reuseport",
	module + "/rlimit", module + "/sigctl", module + "/upgrade",
}

// TestCode type-checks the Go code of all documents: programs, statements, and fields of a pack.Config.
func TestCode(t *testing.T) {
	pkgs := exported(t)
	for _, p := range papers(t) {
		if p.path == filepath.Join("docs", "frameworks.md") {
			continue // see TestFrameworks
		}
		for i, block := range p.blocks {
			code, ok := strings.CutPrefix(block, "go\n")
			if !ok {
				continue
			}
			fset := token.NewFileSet()
			file, err := parsePiece(fset, strings.ReplaceAll(code, "{ ... }", "{}"))
			if err != nil {
				t.Errorf("%s, block %d: %v\n%s", p.path, i, err, code)
				continue
			}
			c := types.Config{Importer: importer.ForCompiler(fset, "gc", pkgs), Error: func(err error) {
				if e := err.(types.Error); !e.Soft { // nor does it matter what is not used
					t.Errorf("%s, block %d: %s\n%s", p.path, i, e.Msg, code)
				}
			}}
			c.Check("piece", fset, []*ast.File{file}, nil)
		}
	}
}

var (
	exportedName = regexp.MustCompile(`\b(affinity|reuseport|rlimit|procgroup|sigctl|upgrade|steer|pack)\.([A-Z]\w*)`)
	configName   = regexp.MustCompile(`\bConfig[.{]([A-Z]\w*)`)
)

// TestNames looks up what documents name of the packages, and of the Configs of pack and upgrade.
func TestNames(t *testing.T) {
	pkgs := importer.ForCompiler(token.NewFileSet(), "gc", exported(t))
	lookUp := func(pkg, name string) types.Object {
		path := module + "/" + strings.Replace(pkg, "steer", "ebpf/steer", 1)
		p, err := pkgs.Import(path)
		if err != nil {
			t.Fatal(err)
		}
		return p.Scope().Lookup(name)
	}
	isField := func(pkg, name string) bool {
		field, _, _ := types.LookupFieldOrMethod(lookUp(pkg, "Config").Type(), true, nil, name)
		return field != nil
	}
	names := 0
	for _, p := range papers(t) {
		if p.path == "CHANGELOG.md" {
			continue // it has former names
		}
		text := p.prose + strings.Join(p.blocks, "")
		for _, m := range exportedName.FindAllStringSubmatch(text, -1) {
			if names++; lookUp(m[1], m[2]) == nil {
				t.Errorf("%s: there is no %s", p.path, m[0])
			}
		}
		for _, m := range configName.FindAllStringSubmatch(text, -1) {
			if !isField("pack", m[1]) && !isField("upgrade", m[1]) {
				t.Errorf("%s: %s: no such field", p.path, m[0])
			}
		}
	}
	if names < 20 {
		t.Errorf("only %d names", names)
	}
}

// parsePiece parses code that is a program, statements, or fields of a pack.Config.
func parsePiece(fset *token.FileSet, code string) (*ast.File, error) {
	if strings.HasPrefix(code, "package ") {
		return parser.ParseFile(fset, "piece", code, 0)
	}
	var head strings.Builder
	head.WriteString("package piece\n")
	for _, path := range imports {
		head.WriteString("import \"" + path + "\"\n")
	}
	if configField.MatchString(code) {
		return parser.ParseFile(fset, "piece", head.String()+prelude+"var _ = pack.Config{\n"+strings.TrimSpace(code)+",\n}\n", 0)
	}
	return parser.ParseFile(fset, "piece", head.String()+prelude+"func _() error {\n"+code+"\npanic(0)\n}\n", 0)
}

var configField = regexp.MustCompile(`^[A-Z]\w*: `)

// exported compiles what pieces of code import, and returns where to find what it exports.
func exported(t *testing.T) importer.Lookup {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("some code sets options of sockets that only Linux has")
	}
	args := append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, imports...)
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			files[path] = file
		}
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
}

// TestFrameworks finds the code of docs/frameworks.md in the program that measures them, a module of its own.
func TestFrameworks(t *testing.T) {
	source, err := os.ReadFile("bench/frameworks/servers.go")
	if err != nil {
		t.Fatal(err)
	}
	p := readPaper(t, "docs/frameworks.md")
	var pieces []string
	for _, m := range regexp.MustCompile("(?m)^\\|[^|]+\\| `([^`]+)`").FindAllStringSubmatch(p.prose, -1) {
		if !strings.HasPrefix(m[1], "p.Handle(") { // the heading
			pieces = append(pieces, "return "+m[1]+"\n")
		}
	}
	for _, block := range p.blocks {
		for line := range strings.Lines(strings.TrimPrefix(block, "go\n")) {
			if !strings.Contains(line, "...") && !strings.HasPrefix(line, "//") {
				pieces = append(pieces, strings.TrimSpace(line)+"\n")
			}
		}
	}
	if len(pieces) < 20 {
		t.Errorf("only %q", pieces)
	}
	for _, piece := range pieces {
		if !strings.Contains(string(source), piece) {
			t.Errorf("docs/frameworks.md: %s: not what bench/frameworks does", strings.TrimSpace(piece))
		}
	}
}

var (
	logLine = regexp.MustCompile(`(?m)^ *((?:DEBUG|INFO|WARN|ERROR) \S.*)$`)
	logSpan = regexp.MustCompile("`([a-z][^`]*)`")
	logKey  = regexp.MustCompile(` ([a-zA-Z]+)=`)
)

// splitLog returns the message of a line of the log, with its level, and the names of its attributes.
func splitLog(line string) (msg string, keys []string) {
	msg = line
	if at := logKey.FindStringIndex(line); at != nil {
		msg = line[:at[0]]
	}
	for _, m := range logKey.FindAllStringSubmatch(line, -1) {
		keys = append(keys, m[1])
	}
	return msg, keys
}

// TestLogLines compares the lines of the log that documents show with those of the transcripts of package master, or,
// if there is no such line, with what is written in the code.
func TestLogLines(t *testing.T) {
	shown := map[string][][]string{} // by message, the attributes of each line
	transcripts, err := filepath.Glob("pack/internal/master/testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range transcripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range logLine.FindAllStringSubmatch(string(text), -1) {
			msg, keys := splitLog(m[1])
			shown[msg] = append(shown[msg], keys)
		}
	}
	code := packCode(t)
	check := func(path, line string) {
		msg, keys := splitLog(line)
		same := func(other []string) bool { // with more at the end, perhaps, as the failures of a worker
			return len(keys) >= len(other) && slices.Equal(keys[:len(other)], other)
		}
		if like := shown[msg]; len(like) > 0 && !slices.ContainsFunc(like, same) {
			t.Errorf("%s: %s\nhas other attributes than what a pack logs: %q", path, line, like[0])
		}
		_, text, _ := strings.Cut(msg, " ")
		for _, word := range append(keys, text) {
			if !strings.Contains(code, `"`+word+`"`) {
				t.Errorf("%s: %s\nthe code of pack does not say %q", path, line, word)
			}
		}
	}
	lines := 0
	for _, p := range papers(t) {
		for _, m := range logLine.FindAllStringSubmatch(p.prose+"\n"+strings.Join(p.blocks, "\n"), -1) {
			lines++
			check(p.path, m[1])
		}
	}
	p := readPaper(t, "docs/when-things-go-wrong.md")
	for line := range strings.Lines(p.prose) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 {
			continue
		}
		for _, m := range logSpan.FindAllStringSubmatch(cells[2], -1) {
			lines++
			msg, keys := splitLog(m[1])
			if _, why, ok := strings.Cut(msg, ", but "); ok { // it is put together
				msg = why
			}
			for _, word := range append(keys, msg) {
				if !strings.Contains(code, `"`+word) {
					t.Errorf("%s: %s: nothing in the code of pack begins with %q", p.path, m[1], word)
				}
			}
		}
	}
	if lines < 20 {
		t.Errorf("only %d lines of the log", lines)
	}
}

// packCode returns the code of package pack and those below it, but for tests.
func packCode(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("pack", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

var (
	goCommand = regexp.MustCompile("(cd bench && )?go (run|test) ([^`\n;)]+)")
	runFlag   = regexp.MustCompile(` -([a-z-]+)`)
	testNamed = regexp.MustCompile(`-(run|bench) ([A-Z][A-Za-z]*)`)
)

// TestCommands looks whether the commands of documents name packages, flags and tests that there are.
func TestCommands(t *testing.T) {
	for _, p := range papers(t) {
		prose := strings.Join(strings.Fields(p.prose), " ")
		for _, m := range goCommand.FindAllStringSubmatch(strings.Join(append(p.blocks, prose), "\n"), -1) {
			base := "."
			if m[1] != "" {
				base = "bench"
			}
			for word := range strings.FieldsSeq(m[3]) {
				if !strings.HasPrefix(word, "./") {
					continue
				}
				dir := filepath.Join(base, strings.TrimSuffix(word, "..."))
				if _, err := os.Stat(dir); err != nil {
					t.Errorf("%s: %s: %v", p.path, m[0], err)
				}
				for _, flag := range runFlag.FindAllStringSubmatch(m[3], -1) {
					if m[2] == "run" && !contains(t, dir+"/*.go", `"`+flag[1]+`"`) {
						t.Errorf("%s: %s: %s has no flag -%s", p.path, m[0], dir, flag[1])
					}
				}
				for _, n := range testNamed.FindAllStringSubmatch(m[3], -1) {
					kind := map[string]string{"run": "Test", "bench": "Benchmark"}[n[1]]
					if !contains(t, dir+"/*_test.go", `(?m)^func `+kind+`\w*`+n[2]) {
						t.Errorf("%s: %s: %s has nothing of that name", p.path, m[0], dir)
					}
				}
			}
		}
	}
}

// contains reports whether some file has what a regular expression matches.
func contains(t *testing.T, files, expr string) bool {
	t.Helper()
	names, err := filepath.Glob(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(expr).Match(text) {
			return true
		}
	}
	return false
}
