// A chip shows its passage in the panel; a file dropped anywhere goes to the upload field.
(() => {
  document.addEventListener("click", (event) => {
    const chip = event.target.closest("a.sb-chip");
    if (!chip) return;
    event.preventDefault();
    const id = (chip.getAttribute("href") || "").split("#").pop();
    const card = document.getElementById(id);
    if (!card) return;
    const group = card.closest("details");
    if (group) group.open = true;
    card.scrollIntoView({ behavior: "smooth", block: "nearest" });
    card.classList.add("sb-flash");
    setTimeout(() => card.classList.remove("sb-flash"), 1600);
  }, true);

  const hasFiles = (event) => Array.from(event.dataTransfer?.types || []).includes("Files");
  const inField = (event) => Boolean(event.target.closest?.("#sb-files"));
  let depth = 0;
  const show = (on) => document.body.classList.toggle("sb-dragging", on);
  document.addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; show(true); } });
  document.addEventListener("dragleave", (event) => { if (hasFiles(event) && --depth <= 0) { depth = 0; show(false); } });
  document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    depth = 0; show(false);
    if (!hasFiles(event) || inField(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const input = document.querySelector("#sb-files input[type=file]");
    if (!input) return;
    const carried = new DataTransfer();
    for (const file of event.dataTransfer.files) carried.items.add(file);
    input.files = carried.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
})();
