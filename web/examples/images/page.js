/**
 * The page of the job that makes thumbnails. It copies the pictures into the browser's private files before the job
 * begins, so that they are there after a reload, and removes the copies when the job is over.
 */

import { Cells, button, byId, count, element, input, play, setting } from "../examples.js"

/** @typedef {{ name: string, size: string, colour: string, url: string }} Thumbnail */

const PAUSE_SECONDS = setting("pause", 0.4)
const FOLDER = "pictures"
const DRAWN = 12
const cells = new Cells()
let made = 0

const folder = async () => (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create: true })

/** @param {File[]} files @returns {Promise<{ name: string, file: string }[]>} */
async function keep(files) {
  const kept = await folder()
  return await Promise.all(files.map(async (file) => {
    const name = crypto.randomUUID()
    const writable = await (await kept.getFileHandle(name, { create: true })).createWritable()
    await writable.write(file)
    await writable.close()
    return { name: file.name, file: name }
  }))
}

/** @param {{ file: string }[]} pictures */
async function forget(pictures) {
  const kept = await folder()
  const names = new Set(pictures.map(({ file }) => file))
  for await (const name of kept.keys()) if (names.has(name)) await kept.removeEntry(name)
}

/** Pictures for those who have none at hand. */
async function draw() {
  return await Promise.all(Array.from({ length: DRAWN }, async (_, at) => {
    const canvas = new OffscreenCanvas(1200, 900)
    const pen = canvas.getContext("2d")
    if (!pen) throw new Error("This browser cannot draw.")
    const hue = (360 * at) / DRAWN
    const sky = pen.createLinearGradient(0, 0, 0, 900)
    sky.addColorStop(0, `hsl(${hue} 55% 40%)`)
    sky.addColorStop(1, `hsl(${hue + 50} 70% 80%)`)
    pen.fillStyle = sky
    pen.fillRect(0, 0, 1200, 900)
    pen.fillStyle = `hsl(${hue + 50} 90% 92%)`
    pen.arc(250 + 60 * at, 260 + 25 * (at % 4), 90, 0, 7)
    pen.fill()
    for (const ridge of [0, 1, 2]) {
      pen.fillStyle = `hsl(${hue + 15} 35% ${38 - 11 * ridge}%)`
      pen.beginPath()
      pen.moveTo(0, 900)
      for (let x = 0; x <= 1200; x += 20) pen.lineTo(x, 520 + 110 * ridge + 70 * Math.sin(x / (150 + 40 * ridge) + at + 2 * ridge))
      pen.lineTo(1200, 900)
      pen.fill()
    }
    return new File([await canvas.convertToBlob()], `hills-${at + 1}.png`)
  }))
}

/** @param {Thumbnail} thumbnail */
function shown({ name, size, colour, url }) {
  const picture = element("div", { class: "picture" })
  if (url) picture.append(element("img", { src: url, alt: name }))
  else picture.append("–")
  const swatch = element("span", { class: "colour" })
  swatch.style.background = colour
  const facts = url ? element("small", {}, size, element("br", {}), swatch, colour) : element("small", {}, size)
  return element("li", {}, picture, name, facts)
}

play({
  database: "example-images.sqlite3",
  job: "make-thumbnails",
  doing: "Making thumbnails",
  onBegin({ payload }) {
    made = 0
    byId("thumbnails").replaceChildren()
    cells.reset(payload.pictures.length, "Pictures done")
    byId("tally").textContent = `0 of ${count(payload.pictures.length)} pictures`
  },
  onStep({ output, wasStored }, { payload }) {
    cells.fill(made, wasStored)
    made += 1
    byId("thumbnails").append(shown(output))
    byId("tally").textContent = `${count(made)} of ${count(payload.pictures.length)} pictures`
  },
  onDone({ output }) {
    const title = output.length === 1 ? "One picture is done" : `${count(output.length)} pictures are done`
    byId("result").replaceChildren(
      element("h2", { id: "result-title", tabindex: "-1" }, title),
      element("ul", { class: "thumbnails" }, ...output.map(shown)),
    )
    return `${title}.`
  },
  onEnd: ({ payload }) => forget(payload.pictures),
}, ({ begin, attempt }) => {
  const files = input("files")
  const take = (/** @type {() => Promise<File[]>} */ find) =>
    attempt(async () => {
      const found = await find()
      if (found.length > 0) begin({ pictures: await keep(found), pause: PAUSE_SECONDS })
    })
  files.addEventListener("change", () => {
    const chosen = [...(files.files ?? [])]
    files.value = "" // or else the same ones could not be chosen twice
    take(async () => chosen)
  })
  button("drawn").addEventListener("click", () => take(draw))
  addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault()
  })
  addEventListener("drop", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return
    event.preventDefault() // the browser would leave the page and open the file
    const dropped = [...event.dataTransfer.files]
    if (!byId("start").hidden) take(async () => dropped)
  })
})
