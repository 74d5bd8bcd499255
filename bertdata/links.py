"""Links in wikitext: their labels stay, pictures and categories go."""

from __future__ import annotations

import re
from functools import lru_cache

from bertdata.nesting import resolve_nested

__all__ = ["MEDIA_NAMESPACES", "hide_bars", "label_links", "resolve_links", "restore_bars"]

MEDIA_NAMESPACES = (6, 14)  # File and Category: links into them show a picture, or nothing

# Their names in the larger wikis, for dumps whose header does not tell. A dump's own names are added.
_MEDIA_NAMES = (
    *("File", "Image", "Category", "Datei", "Bild", "Kategorie", "Fichier", "Catégorie", "Archivo", "Imagen"),
    *("Categoría", "Immagine", "Categoria", "Ficheiro", "Imagem", "Bestand", "Afbeelding", "Categorie", "Plik"),
    *("Grafika", "Kategoria", "Файл", "Изображение", "Категория", "Зображення", "Категорія", "Fil", "Kategori"),
    *("Tiedosto", "Kuva", "Luokka", "Soubor", "Fájl", "Kép", "Kategória", "Dosya", "Resim", "Hình", "Fitxer"),
    *("Imatge", "Berkas", "Gambar", "Fișier", "Αρχείο", "Εικόνα", "Κατηγορία", "Датотека", "Слика"),
    *(
        "Категорија",
        "文件",
        "檔案",
        "图像",
        "圖像",
        "分类",
        "分類",
        "ファイル",
        "画像",
        "カテゴリ",
        "파일",
        "그림",
        "분류",
    ),
    *("ملف", "صورة", "تصنيف", "پرونده", "رده", "קובץ", "תמונה", "קטגוריה", "चित्र", "श्रेणी", "Tập tin", "Thể loại"),
)

# Split at a link with its label captured and joined again: a substitution without a call per link.
_LINK = re.compile(r"\[\[(?:([^\[\]|\n:]*)|[^\[\]|\n:]*\|([^\[\]\n]*))\]\]")
_PREFIXED_LINK = re.compile(r"\[\[([^\[\]|\n:]*):([^\[\]\n]*(?:(?:\[(?!\[)|\](?!\])|\n(?!\n))[^\[\]\n]*)*)\]\]")
_OPEN_PREFIXED_LINK = re.compile(r"\[\[([^\[\]|\n:]*):[^\n]*")
_BRACKETED_LINK = re.compile(r"\[\[(?:[^\[\]|\n]*\|)?([^\[\]\n]*(?:(?:\[(?!\[)|\](?!\]))[^\[\]\n]*)*)\]\]")
# The lookaheads leave one way to divide a line into address, spaces and label: with more, the time for a link that is
# not closed would be quadratic in the line.
_EXTERNAL_LINK = re.compile(
    r"\[(?:(?:https?:|ftps?:|irc:|news:|gopher:)?//|mailto:)[^\s\[\]]*(?=[\s\]])[ \t]*(?![ \t])([^\[\]\n]*)\]"
)
_HIDDEN_BAR = "\ufdd1"
_SISTER_PROJECTS = {
    *("w", "wikipedia", "wikt", "wiktionary", "s", "wikisource", "q", "wikiquote", "b", "wikibooks", "n", "wikinews"),
    *("v", "wikiversity", "voy", "wikivoyage", "c", "commons", "d", "wikidata", "species", "m", "meta", "mw"),
}
_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*|simple")
_NOT_A_LANGUAGE = {"doi", "rfc", "hdl", "wmf"} | _SISTER_PROJECTS


def label_links(text: str) -> str:
    """Replaces each plain link, [[page]] or [[page|label]], by its label."""
    return "".join(filter(None, _LINK.split(text)))


def hide_bars(text: str) -> str:
    """Puts the bars of links with a prefix aside, so that they are not taken for those of a template around them."""
    return _PREFIXED_LINK.sub(lambda match: match[0].replace("|", _HIDDEN_BAR), text)


def restore_bars(text: str) -> str:
    """Brings back what `hide_bars` put aside."""
    return text.replace(_HIDDEN_BAR, "|")


def resolve_links(text: str, *, media_names: tuple[str, ...]) -> str:
    """Replaces links by their labels; drops pictures with their captions, categories and links to other languages.

    Args:
        text: Wikitext without templates.
        media_names: Names of the File and Category namespaces in the wiki's own language.

    Returns:
        Text without links in brackets, internal or external; a bare address stays.
    """
    media_prefixes = _media_prefixes(media_names)

    def expand(match: re.Match[str]) -> str:
        name, rest = match[1].strip(), match[2]
        prefix = name.lower()
        if prefix in media_prefixes:
            return ""
        target, bar, label = rest.partition("|")
        if bar:
            return label
        if _LANGUAGE_CODE.fullmatch(prefix) and prefix not in _NOT_A_LANGUAGE:
            return ""
        return target if not prefix or prefix in _SISTER_PROJECTS else f"{name}:{target}"

    def resolve_innermost(level: str) -> str:
        return _PREFIXED_LINK.sub(expand, label_links(level)) if "[[" in level else level

    text = resolve_nested(text, resolve_innermost)
    if "[[" in text:
        text = _OPEN_PREFIXED_LINK.sub(lambda m: "" if m[1].strip().lower() in media_prefixes else m[0], text)
        text = _BRACKETED_LINK.sub(r"\1", text)
        text = text.replace("[[", "")
    text = text.replace("]]", "")
    return "".join(_EXTERNAL_LINK.split(text))


@lru_cache(maxsize=16)
def _media_prefixes(media_names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.lower() for name in (*_MEDIA_NAMES, *media_names))
