"""What has to be so for everybody to be able to read and use a page, asked of the page itself, in its browser.

The rules are those of WCAG 2.2 that can be told by a machine and that our pages could break: a language, a title, one
heading, one main part; a name for every control; an error that belongs to its control; ids that are there once; text
that stands out from what is behind it (1.4.3, 4.5 to 1); nothing that has to be scrolled sideways (1.4.10).
"""

FAULTS = r"""
(() => {
  const faults = [], all = (selector) => [...document.querySelectorAll(selector)];
  const must = (held, fault) => { if (!held) faults.push(fault); };
  must(document.documentElement.lang, "no language");
  must(document.title.trim(), "no title");
  must(all("h1").length === 1, "not one h1");
  must(all("main").length === 1, "not one main");
  must(all("body > :not(main)").length === 0, "something outside of main");
  const ids = all("[id]").map((e) => e.id);
  must(new Set(ids).size === ids.length, "an id twice");
  for (const e of all("input, textarea, select, button")) {
    const named = [...(e.tagName === "BUTTON" ? [e] : e.labels)].map((l) => l.innerText.trim()).join("");
    must(named, "no name: " + e.outerHTML.slice(0, 100));
    const box = (["radio", "checkbox"].includes(e.type) ? e.labels[0] : e).getBoundingClientRect();
    must(box.height >= 24 && box.width >= 24, "too small to hit: " + e.outerHTML.slice(0, 100));
  }
  for (const e of all("fieldset")) must(e.querySelector("legend")?.innerText.trim(), "fieldset without a legend");
  for (const e of all("[aria-describedby]"))
    for (const id of e.getAttribute("aria-describedby").split(" "))
      must(document.getElementById(id), "described by nothing: " + id);
  for (const e of all("[aria-invalid]"))
    must(e.getAttribute("aria-describedby")?.includes("-error"), "error of nobody");
  for (const e of all("dl > *")) must(["DT", "DD"].includes(e.tagName), "not of a dl: " + e.tagName);
  must(document.documentElement.scrollWidth <= window.innerWidth, "wider than the screen");
  const channels = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor, parts = channels(colour);
      if (parts.length === 3 || parts[3] === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const e of all("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    must((a + 0.05) / (b + 0.05) >= 4.5, "hard to read: " + e.innerText.slice(0, 50));
  }
  return faults;
})()
"""
