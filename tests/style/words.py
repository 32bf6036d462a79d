"""Wording of texts for users and of comments. A test: words.py ROOT.

RULES apply to texts that users read: string literals of the program, the page, the documents and the script `run`.
COMMENT_RULES apply to comments in C. Each rule has an example that it must find, so that a rule cannot rot, and the
words to use instead.
"""
import pathlib
import re
import sys

# pattern, what to write instead, an example
RULES = (
    (r"(?<![-\w])pictures? (of|that|in|with|to|and|as|from|at|on)\b", "image", "a picture of each line"),
    (r"\b(the|an?|no|each|one|every|this|your) pictures?\b", "image", "the picture"),
    (r"\bin halves\b|\bstore halves\b", "fp16", "store halves (dtype f16)"),
    (r"\bthere is no (such|field|parameter|option|key|device|image|memory)\b", "unknown ..., no ... found, does not exist",
     "there is no field \"x\""),
    (r"\bthere (is|are) nothing\b", "no ... found", "there is nothing at /x"),
    (r"\bwants? (a|an|the|one|its|more|less) ", "needs, requires, expects", "this server wants an API key"),
    (r"\b(are|is) wanted\b", "expected, required", "1 to 10 are wanted"),
    (r"\bis to be\b|\bare to be\b", "must be", "a file is to be given"),
    (r"\bis no (valid|option|number|URL|address|size|file|folder|plain|http)", "is not a ...", "5 is no number"),
    (r"\bare not of\b|\bis not like\b", "expected ...", "the rate is not like 5/20"),
    (r"\(any more\)|\(yet\)", "has expired, not finished yet", "no such file (any more)"),
    (r"\b(may|can) not do (that|everything)\b", "lacks the scope", "this key may not do that"),
    (r"\bgiven beside\b|\bstand beside\b", "combined with", "cannot stand beside steps"),
    (r"\bwins? (over|against)\b|\bone wins\b", "overrides", "flags win over it"),
    (r"\bin truth\b|\bby lot\b", "(leave it out), random", "drawn by lot"),
    (r"\b(no|which) memory type that\b|\bwhoever\b(?! can| administers)", "a client that ...", "whoever reads it"),
    (r"\banswers? (with|of the server|at once|that)\b|\bthe answer\b", "respond, response", "answer with events"),
    (r"\bgives? no\b|\bgave no random\b", "does not support, cannot read", "the system gave no random numbers"),
    (r"\bfor ever\b|\ba lot of\b", "indefinitely, many", "hangs for ever"),
    (r"\bcut short\b", "truncated", "the file is cut short"),
    (r"\bdoes not say why\b|\bsays nothing of\b", "gives no reason", "the server does not say why"),
    (r"\b(draws|drawn) at the next\b", "generated", "drawn at the next larger stage"),
)
COMMENT_RULES = (
    (r"^(What|Whatever|Whoever)\b", "name the thing, or begin with a verb", "What the files of the job core share."),
    (r"\b[Kk]nows? nothing of\b", "about", "Knows nothing of routes."),
    (r"\bfor ever\b", "forever, indefinitely", "would wait for ever"),
    (r"\b(for|over|of) so (many|much|long)\b", "the number or the limit", "or for so long"),
    (r"\b(is|are) taken over\b|^taken over", "takes ownership", "the reference is taken over"),
    (r"\banew\b", "again, regenerated", "drawn anew where it is light"),
    (r"\b[Ww]hoever\b(?! can| administers)|\bwhatever comes\b", "a client that ..., in any case", "tells whoever waits"),
    (r"\b's face\b", "public interface", "the engine's face"),
    (r"\bin halves\b", "in fp16", "stored in halves"),
    (r"\b(is|are) to be\b", "must be", "a file that is to be read"),
    (r"\b(in|any) company\b", "with other images", "bit-equal in any company"),
    (r"\b[Nn]obody else includes\b", "private to these files", "Nobody else includes this."),
    (r"\b(the|an?|no|each|one|every|this) pictures?\b", "image", "the picture"),
)
COMMENT_FOLDERS = ("engine", "server", "tests")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "training/README.md", "docs/*.md",
             "config/*.conf")
# What is quoted in a document is a name or an example.
QUOTED = re.compile(r"`[^`]*`|<[^>]*>|\]\([^)]*\)")
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|\'(?:[^\'\\\n]|\\.)*\'|("(?:[^"\\\n]|\\.)*"(?:\s*"(?:[^"\\\n]|\\.)*")*)', re.S)
PIECE = re.compile(r'"((?:[^"\\\n]|\\.)*)"')


def literals(path):
    """(line, text) of the string literals, adjacent ones joined; include lines are left out."""
    text = re.sub(r"^#include.*$", "", path.read_text(), flags=re.M)
    for m in TOKEN.finditer(text):
        if m.group(1):
            yield text.count("\n", 0, m.start()) + 1, "".join(PIECE.findall(m.group(1)))


def comments(path):
    """(line, text) of the comments, those of consecutive lines joined if they begin in the same column."""
    text = path.read_text()
    last = None
    for m in re.finditer(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', text, re.S):
        if not m.group().startswith("//"):
            continue
        line, column = text.count("\n", 0, m.start()) + 1, m.start() - text.rfind("\n", 0, m.start())
        words = m.group().lstrip("/ ")
        if last and last[0] + last[3] == line and last[1] == column and not words.startswith("----"):
            last = (last[0], column, last[2] + " " + words, last[3] + 1)
            continue
        if last:
            yield last[0], last[2]
        last = (line, column, words, 1) if not words.startswith("----") else None
    if last:
        yield last[0], last[2]


def texts(root):
    for folder in ("engine", "server"):
        for path in sorted((root / folder).rglob("*.[ch]")):
            for line, text in literals(path):
                if " " in text:
                    yield path, line, text
    for path in sorted([root / "server/web/index.html", *(root / "server/web").glob("*.js")]):
        for i, line in enumerate(path.read_text().split("\n"), 1):
            shown = re.findall(r'"([^"]* [^"]*)"|>([^<>]+)<', line) if path.suffix == ".html" else re.findall(
                r'"([^"]* [^"]*)"()', line)
            for a, b in shown:
                yield path, i, a or b
    for pattern in DOCUMENTS:
        for path in sorted(root.glob(pattern)):
            for i, line in enumerate(path.read_text().split("\n"), 1):
                if not line.startswith("    "):
                    yield path, i, QUOTED.sub("", line)
    for i, line in enumerate((root / "run").read_text().split("\n"), 1):
        yield root / "run", i, line


def main():
    root = pathlib.Path(sys.argv[1])
    bad = 0
    for pattern, better, example in RULES + COMMENT_RULES:
        if not re.search(pattern, example):
            print(f"the rule {pattern} does not find its example: {example}")
            bad += 1
    rules = [(re.compile(pattern), better) for pattern, better, _ in RULES]
    comment_rules = [(re.compile(pattern), better) for pattern, better, _ in COMMENT_RULES]
    commented = 0
    for folder in COMMENT_FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            for line, text in comments(path):
                commented += 1
                for rule, better in comment_rules:
                    found = rule.search(text)
                    if found:
                        print(f"{path.relative_to(root)}:{line}: \"{found.group()}\" in \"{text[:100]}\"; better: {better}")
                        bad += 1
    seen = {".c": 0, ".md": 0, ".html": 0, ".js": 0}
    for path, line, text in texts(root):
        seen[path.suffix] = seen.get(path.suffix, 0) + 1
        for rule, better in rules:
            found = rule.search(text)
            if found:
                print(f"{path.relative_to(root)}:{line}: \"{found.group()}\" in \"{text[:100]}\"; better: {better}")
                bad += 1
    if seen[".c"] < 500 or commented < 1000 or not all(seen.values()):
        print("not everything was read:", seen)
        bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
