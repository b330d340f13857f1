package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// module is a module that is linked into a binary. Dir is where its source lies, if that is known.
type module struct{ Path, Version, Sum, Dir string }

// modules reads from a binary which modules it was linked from.
func modules(binary string) ([]module, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var out []module
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		out = append(out, module{Path: d.Path, Version: d.Version, Sum: d.Sum})
	}
	return out, nil
}

// The parts of SPDX 2.3 that are written (spdx.github.io/spdx-spec/v2.3).
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		DataLicense   string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		Name      string         `json:"name"`
		ID        string         `json:"SPDXID"`
		Version   string         `json:"versionInfo"`
		Download  string         `json:"downloadLocation"`
		Analysed  bool           `json:"filesAnalyzed"`
		Concluded string         `json:"licenseConcluded"`
		Declared  string         `json:"licenseDeclared"`
		Copyright string         `json:"copyrightText"`
		Checksums []spdxChecksum `json:"checksums,omitempty"`
		Refs      []spdxRef      `json:"externalRefs,omitempty"`
		Comment   string         `json:"comment,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

const none = "NOASSERTION"

// sbom writes beside a binary what it was linked from.
func (r *release) sbom(binary string) error {
	doc, err := r.spdx(binary)
	if err != nil {
		return fmt.Errorf("list parts of %s: %w", binary, err)
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(binary+".spdx.json", append(b, '\n'), 0o644)
}

func (r *release) spdx(binary string) (*spdxDocument, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	mods, err := modules(binary)
	if err != nil {
		return nil, err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	name := filepath.Base(binary)
	doc := &spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace: "https://github.com/fathom-trace/fathom/spdx/" + name + "-" + sum,
		Creation:  spdxCreation{r.time.Format(time.RFC3339), []string{"Tool: fathom-internal-gen-dist"}},
	}
	main := spdxPackage{Name: "fathom", ID: "SPDXRef-fathom", Version: r.version, Download: none, Concluded: none, Declared: "Apache-2.0", Copyright: none,
		Checksums: []spdxChecksum{{"SHA256", sum}}, Refs: purl("github.com/fathom-trace/fathom", "")}
	std := spdxPackage{Name: "Go standard library", ID: "SPDXRef-std", Version: strings.TrimPrefix(info.GoVersion, "go"), Download: none, Concluded: none,
		Declared: "BSD-3-Clause", Copyright: none, Refs: purl("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	doc.Packages = []spdxPackage{main, std}
	doc.Relationships = []spdxRelationship{{doc.ID, "DESCRIBES", main.ID}, {main.ID, "CONTAINS", std.ID}}
	for _, m := range mods {
		p := spdxPackage{Name: m.Path, ID: "SPDXRef-" + notID.ReplaceAllString(m.Path, "-"), Version: m.Version, Download: none, Concluded: none, Declared: none,
			Copyright: none, Refs: purl(m.Path, m.Version), Comment: "go.sum: " + m.Sum}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, spdxRelationship{main.ID, "CONTAINS", p.ID})
	}
	return doc, nil
}

// notID are the characters that an identifier of SPDX must not have.
var notID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// purl names a module as other tools look it up.
func purl(path, version string) []spdxRef {
	locator := "pkg:golang/" + path
	if version != "" {
		locator += "@" + version
	}
	return []spdxRef{{"PACKAGE-MANAGER", "purl", locator}}
}
