"""The zoom of pages with pictures: a press on one, or Enter, shows it as large as the window, and the next closes it.

A page puts ``STYLE`` into its style, ``DIALOG`` into its body and ``SCRIPT`` before its own script, which calls
``zoomable(img, file, caption)``. Without a file the picture of the page is enlarged.
"""

STYLE = """\
.zoomable { cursor: zoom-in; }
.zoomable:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
dialog { border: 0; padding: 0; max-width: 96vw; max-height: 96vh; background: var(--card); color: inherit;
         border-radius: 10px; }
dialog .zoomable:focus-visible { outline: none; }  /* all of what is shown has the focus */
dialog::backdrop { background: rgb(0 0 0 / 0.6); }
dialog[open] { display: flex; flex-direction: column; }
dialog img { width: auto; height: auto; max-width: 96vw; min-width: min(96vw, 640px); min-height: 0; align-self: center;
             object-fit: contain; cursor: zoom-out; }
dialog a, dialog p { flex: none; margin: 0; padding: 8px 12px; font-size: 13px; overflow-wrap: anywhere; }
dialog p { width: 0; min-width: 100%; }  /* as wide as the picture */
"""

DIALOG = '<dialog id="zoom" aria-label="Enlarged picture"></dialog>'

SCRIPT = """\
const zoom = document.getElementById("zoom"), PRESSED = ["Enter", " "];
// The page's own picture, until the file is there; where the page lies alone it stays.
function enlarge(img, file, caption) {
  const shown = img.cloneNode();
  zoom.replaceChildren(shown);
  if (caption) {
    const said = document.createElement("p");
    said.textContent = caption;
    zoom.append(said);
  }
  if (file) {
    const original = new Image();
    original.onload = () => {
      if (!shown.isConnected) return;
      const link = document.createElement("a");
      shown.src = link.href = file;
      link.textContent = "Open the original";
      zoom.append(link);
    };
    original.src = file;
  }
  zoom.showModal();
}
function zoomable(img, file, caption) {
  img.classList.add("zoomable");
  img.tabIndex = 0;
  img.setAttribute("role", "button");
  img.onclick = () => enlarge(img, file, caption);
  img.onkeydown = e => { if (PRESSED.includes(e.key)) { e.preventDefault(); img.onclick(); } };
}
zoom.onclick = e => { if (e.target.tagName !== "A") zoom.close(); };
zoom.onkeydown = e => {
  if (!PRESSED.includes(e.key) || e.target.tagName === "A") return;
  e.preventDefault();
  zoom.close();
};
"""
