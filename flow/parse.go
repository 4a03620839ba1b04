package flow

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Endings of the names of files.
const (
	FileSuffix = ".sallyport.hcl" // what Sallyport governs: flows, schedules, users, …
	CodeSuffix = ".star"          // code of flows
	TestSuffix = ".flowtest.hcl"  // cases for "sallyport flow test"
)

// knownBlocks are the types of top-level blocks in FileSuffix files. Those that are not
// read here are package apply's.
var knownBlocks = [...]string{"flow", "schedule", "target", "user", "group", "role", "policy", "document"}

// Parse reads flow files by their names: NAME.sallyport.hcl, and the NAME.star that they
// name. Blocks that are not flow, schedule or target are somebody else's and are skipped.
// Errors are *ParseError; they name file, line and what is allowed.
func Parse(files map[string][]byte) (*Set, error) {
	p := &parser{files: files, shared: map[string]sharedTarget{}, programs: map[string]*program{}, set: &Set{
		Digest:    Digest(files),
		Flows:     map[string]*Flow{},
		Schedules: map[string]*Schedule{},
	}}
	if len(files) > maxFiles {
		p.add(hcl.Range{}, "%d files; at most %d", len(files), maxFiles)
		return nil, p.err()
	}
	blocks := p.readFiles()
	for _, b := range blocks {
		switch b.Type {
		case "schedule":
			p.schedule(b)
		case "target":
			p.sharedTarget(b)
		}
	}
	for _, b := range blocks {
		if b.Type == "flow" {
			p.flow(b)
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return p.set, nil
}

// Digest is the hex SHA-256 over files: names and contents, in the order of names.
func Digest(files map[string][]byte) string {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		part([]byte(name))
		part(files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// parser reads a set of files.
type parser struct {
	problems
	files  map[string][]byte
	set    *Set
	shared map[string]sharedTarget
	// programs are compiled code by file: many flows may share one.
	programs map[string]*program
	seen     map[string]hcl.Range // of flows and schedules, by type and name
}

type sharedTarget struct {
	target Target
	at     hcl.Range
}

// readFiles returns the blocks of all files, in the order of names and lines.
func (p *parser) readFiles() []*hclsyntax.Block {
	var blocks []*hclsyntax.Block
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		switch {
		case strings.HasSuffix(name, FileSuffix):
			blocks = append(blocks, p.readFile(name)...)
		case strings.HasSuffix(name, ".hcl") && !strings.HasSuffix(name, TestSuffix):
			p.add(hcl.Range{Filename: name}, "want a name that ends in %s", FileSuffix)
		}
	}
	return blocks
}

func (p *parser) readFile(name string) []*hclsyntax.Block {
	body := readBody(&p.problems, name, p.files[name])
	if body == nil {
		return nil
	}
	for attr, a := range body.Attributes {
		p.add(a.NameRange, "argument %q stands outside a block", attr)
	}
	for _, b := range body.Blocks {
		if !slices.Contains(knownBlocks[:], b.Type) {
			p.add(b.TypeRange, "unknown block %q; known are %s", b.Type, strings.Join(knownBlocks[:], ", "))
		}
	}
	return body.Blocks
}

// fresh reports whether a name is used for the first time among blocks of its type.
func (p *parser) fresh(r *reader, name string) bool {
	if !validName(name) {
		r.wrong(r.at, "want a name of up to %d letters, digits, dots, dashes and underscores, starting with a letter or digit", maxName)
		return false
	}
	key := r.typ + " " + name
	if first, ok := p.seen[key]; ok {
		r.wrong(r.at, "is already at %s:%d", first.Filename, first.Start.Line)
		return false
	}
	if p.seen == nil {
		p.seen = map[string]hcl.Range{}
	}
	p.seen[key] = r.at
	return true
}

// flow reads one flow and checks it.
func (p *parser) flow(b *hclsyntax.Block) {
	r := newReader(&p.problems, b)
	name := r.label()
	if name == "" || !p.fresh(r, name) {
		return
	}
	if len(p.set.Flows) == maxFlows {
		r.wrong(r.at, "more than %d flows", maxFlows)
		return
	}
	f := &Flow{
		Name:        name,
		Label:       r.text("label"),
		Description: r.text("description"),
		Channels:    p.known(r, "channels", channels[:]),
		Cedar:       p.cedar(r),
		WatchNotice: r.flagOrNone("watch_notice"),
		Clocks:      p.clocks(r.one("clocks")),
		Announce:    p.announce(r.all("announce", 20)),
		BreakGlass:  p.breakGlass(r.one("break_glass")),
		Targets:     p.targets(r),
		Stages:      p.stages(r),
	}
	f.Code = p.code(r)
	f.Fields = p.fields(r, f)
	f.Ask = p.people(r.one("ask"))
	r.done()
	if f.Label == "" {
		f.Label = name
	}
	p.checkFlow(r, f)
	p.set.Flows[name] = f
}

// checkFlow checks what no block can say alone.
func (p *parser) checkFlow(r *reader, f *Flow) {
	if f.Ask.Empty() {
		r.wrong(r.at, "nobody may ask; want ask { … } with users, groups, tags, on_call or everyone = true")
	}
	if len(f.Targets) == 0 {
		r.wrong(r.at, "gives nothing; want a target block, or targets = [names of shared ones]")
	}
	switch {
	case f.BreakGlass != nil && len(f.Stages) > 0:
		r.wrong(r.at, "break_glass grants first; it has no stages")
	case f.BreakGlass != nil && f.Ask.Everyone:
		r.wrong(r.at, "break_glass is for people who are named in advance; ask cannot be everyone")
	case f.BreakGlass == nil && len(f.Stages) == 0 && strings.TrimSpace(f.Cedar) == "":
		r.wrong(r.at, "nobody decides; want a stage, cedar rules, or break_glass")
	}
	for _, s := range f.Stages {
		switch {
		case s.Fallback == nil:
		case s.Fallback.After == 0 && s.Within == 0:
			r.wrong(r.at, "stage %q: its fallback wants after = how long the stage lasts before, or the stage within", s.Name)
		case s.Fallback.After >= f.Clocks.Pending || s.Fallback.After == 0 && s.Within >= f.Clocks.Pending:
			r.wrong(r.at, "stage %q: its fallback comes when the pending clock of %s is over", s.Name, FormatDuration(f.Clocks.Pending))
		}
	}
}

// known reads a list of which each entry is known.
func (p *parser) known(r *reader, name string, known []string) []string {
	given := r.texts(name)
	for _, g := range given {
		if !slices.Contains(known, g) {
			r.wrong(r.where(name), "%s: %q is not known; want some of %s", name, g, strings.Join(known, ", "))
		}
	}
	return given
}

func (p *parser) cedar(r *reader) string {
	v, at, ok := r.value("cedar")
	if !ok {
		return ""
	}
	text := r.asText("cedar", at, v, maxCedar)
	if _, err := parseCedar(text); err != nil {
		r.wrong(at, "cedar: %v", err)
	}
	return text
}

// beside is the name of a file that another names, in the same folder.
func beside(file, name string) string { return path.Join(path.Dir(file), name) }
