// Package pages reads the Markdown of this repository, for the tests that hold it to
// what the programs do: its blocks of code, its headings and its links.
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Page is one file of Markdown.
type Page struct {
	Name   string // from the root of the repository
	Blocks []Block
	Links  []Link
	// Anchors are what a link can name after the #, one for each heading.
	Anchors []string
}

// Block is a fenced block of code.
type Block struct {
	Page string
	Line int    // of its text
	Lang string // empty for output and pictures
	// Mark is the comment right before the block, such as "run: live", which tells what
	// the tests do with it. It is empty without such a comment.
	Mark string
	Text string
}

func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Page, b.Line) }

// Link is a link to a place of this repository or elsewhere.
type Link struct {
	Line   int
	Target string
}

// Read reads the pages at the root of the repository, in docs and in deploy.
func Read(root string) (pages []Page, err error) {
	for _, dir := range []string{".", "docs", "deploy"} {
		err := fs.WalkDir(os.DirFS(root), dir, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && dir == "." && name != dir:
				return fs.SkipDir
			case path.Ext(name) != ".md":
				return nil
			}
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				return err
			}
			page, err := Parse(name, string(text))
			pages = append(pages, page)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return pages, nil
}

var (
	comment = regexp.MustCompile(`^<!-- (.+) -->$`)
	heading = regexp.MustCompile(`^#{1,6} (.+)$`)
	// A link may go over a line break; a picture is a link, too.
	link   = regexp.MustCompile(`\]\(([^()\s]+)\)|(?:src|srcset|href)="([^"]+)"|(?m:^\[[^\]]+\]: (\S+))`)
	inline = regexp.MustCompile("`[^`\n]*`")
	// What GitHub keeps of a heading for its anchor.
	dropped = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)
	titled  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// Parse reads one page.
func Parse(name, text string) (page Page, err error) {
	page.Name = name
	var block *Block
	var mark, indent string
	var prose strings.Builder // the page without its blocks, line for line
	for i, line := range strings.SplitAfter(text, "\n") {
		trimmed := strings.TrimSpace(line)
		fence := strings.HasPrefix(trimmed, "```")
		switch {
		case fence && block == nil:
			lang, rest, _ := strings.Cut(strings.TrimPrefix(trimmed, "```"), " ")
			if rest != "" {
				return page, fmt.Errorf("%s:%d: %q after the language of a block: the comment before it is the place for that", name, i+1, rest)
			}
			indent, _, _ = strings.Cut(line, "```") // in a list
			block = &Block{Page: name, Line: i + 2, Lang: lang, Mark: mark}
		case fence && trimmed == "```":
			page.Blocks = append(page.Blocks, *block)
			block, mark = nil, ""
		case block != nil:
			block.Text += strings.TrimPrefix(line, indent)
		default:
			if match := comment.FindStringSubmatch(trimmed); match != nil {
				mark = match[1]
			} else if trimmed != "" {
				mark = ""
			}
			if match := heading.FindStringSubmatch(trimmed); match != nil {
				page.addAnchor(match[1])
			}
			prose.WriteString(strings.TrimSuffix(line, "\n"))
		}
		prose.WriteString("\n")
	}
	if block != nil {
		return page, fmt.Errorf("%s:%d: this block does not end", name, block.Line)
	}
	page.addLinks(inline.ReplaceAllStringFunc(prose.String(), func(s string) string { return strings.Repeat("`", len(s)) }))
	return page, nil
}

// addAnchor adds the anchor that GitHub gives to a heading.
func (p *Page) addAnchor(title string) {
	title = titled.ReplaceAllString(strings.TrimSpace(title), "$1")
	anchor := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
	unique := anchor
	for i := 1; slices.Contains(p.Anchors, unique); i++ {
		unique = fmt.Sprintf("%s-%d", anchor, i)
	}
	p.Anchors = append(p.Anchors, unique)
}

func (p *Page) addLinks(prose string) {
	for _, at := range link.FindAllStringSubmatchIndex(prose, -1) {
		for i := 2; i < len(at); i += 2 { // one of the groups has the target
			if start, end := at[i], at[i+1]; start >= 0 {
				p.Links = append(p.Links, Link{1 + strings.Count(prose[:start], "\n"), prose[start:end]})
			}
		}
	}
}
