/* How a scene of engine/app/scene.js is drawn, and which bearing a place in the street image has. */
"use strict";
(() => {
  const { Scene, wrap, clamp, photoRay, photoPlace, RADIANS, WEDGE, YELLOW, NAMES } = window.SceneParts;
  const FONT = "13px system-ui, sans-serif";

  function paper(canvas) {  // a canvas in CSS pixels, sharp on every screen
    const ratio = window.devicePixelRatio || 1, [w, h] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    return [pen, w, h];
  }
  function outlined(pen, path, colour, width) {
    for (const [style, wide] of [["rgba(0,0,0,.75)", width + 2.5], [colour, width]]) {
      Object.assign(pen, { strokeStyle: style, lineWidth: wide });
      pen.stroke(path);
    }
  }
  function write(pen, text, x, y, align = "center", colour = "white") {
    Object.assign(pen, { font: FONT, textAlign: align, strokeStyle: "rgba(0,0,0,.8)", lineWidth: 3.5, lineJoin: "round" });
    pen.strokeText(text, x, y);
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
  }
  function line(points) {
    const path = new Path2D();
    points.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    return path;
  }
  const named = (bearing) => NAMES[Math.round((((bearing % 360) + 360) % 360) / 45) % 8];

  Object.assign(Scene.prototype, {
    draw() {
      if (this.waits) return;
      this.waits = requestAnimationFrame(() => {
        this.waits = 0;
        if (!this.value.map) return;
        this.drawMap();
        if (!this.street.hidden && this.camera) this.drawStreet();
        this.tell();
      });
    },

    tell() {
      const whole = (((Math.round(10 * this.look) / 10) % 360) + 360) % 360;
      const known = this.value.turned !== false;
      let words = this.camera ? `Looking ${whole.toFixed(1)}°${known ? `, ${named(whole)}` : ""}` : "";
      if (this.mode === "aim") words = `Heading of the centre ${(((this.heading % 360) + 360) % 360).toFixed(1)}°`;
      this.street.setAttribute("aria-valuenow", Math.round(whole) % 360);
      this.street.setAttribute("aria-valuetext", words);
      if (this.measured.length === 2) {
        const metres = this.value.map.metres;
        words = `${this.length().toFixed(1)} px${metres ? `, ${(this.length() * metres).toFixed(2)} m` : ""}`;
      }
      const text = [words, this.said].filter(Boolean).join(" · ");
      if (this.says.textContent !== text) this.says.textContent = text;
    },

    // --- the street image ---
    photoBox(w, h) {  // where a whole photograph lies
      const image = this.image(this.camera.image), shape = image ? image.naturalWidth / image.naturalHeight : 1.5;
      const wide = Math.min(w, h * shape);
      return [(w - wide) / 2, (h - wide / shape) / 2, wide, wide / shape];
    },
    bearingInStreet(x, y) {
      const [w, h] = [this.street.clientWidth, this.street.clientHeight];
      if (!this.photo) return wrap(this.look + (x / w - 0.5) * this.fov);
      const [left, top, wide, high] = this.photoBox(w, h), [u, v] = [(x - left) / wide, (y - top) / high];
      return u < 0 || u > 1 ? null : wrap(this.heading + photoRay(this.camera, u, v));
    },
    placeInPhoto(bearing, depression, box) {
      const at = photoPlace(this.camera, wrap(bearing - this.heading), depression);
      return at && [box[0] + at[0] * box[2], box[1] + at[1] * box[3]];
    },
    drawStreet() {
      const [pen, w, h] = paper(this.street);
      Object.assign(pen, { fillStyle: "#111" });
      pen.fillRect(0, 0, w, h);
      if (this.photo) this.drawPhoto(pen, w, h); else this.drawPanorama(pen, w, h);
    },
    drawPanorama(pen, w, h) {
      const { span, top, bottom } = this.camera, image = this.image(this.camera.image);
      const most = (h / w) * this.fov / 2;  // degrees above the middle that are seen
      this.up = top + bottom > 2 * most ? clamp(this.up, most - bottom, top - most) : (top - bottom) / 2;
      if (span < 360) {
        const room = Math.max(0, (span - this.fov) / 2);
        this.fov = Math.min(this.fov, span);
        this.look = wrap(this.heading + clamp(wrap(this.look - this.heading), -room, room));
      }
      const per = w / this.fov, left = w / 2 + wrap(this.heading - this.look) * per - (span / 2) * per;
      const y = h / 2 - (top - this.up) * per;
      for (const turn of span < 360 ? [0] : [-360, 0, 360])
        if (image) pen.drawImage(image, left + turn * per, y, span * per + 0.5, (top + bottom) * per);
      const horizon = h / 2 + this.up * per, step = this.fov > 200 ? 45 : this.fov > 70 ? 15 : 5;
      const first = Math.ceil((this.look - this.fov / 2) / step) * step;
      for (let bearing = first; bearing < this.look + this.fov / 2; bearing += step) {
        const x = w / 2 + (bearing - this.look) * per, whole = ((bearing % 360) + 360) % 360;
        outlined(pen, line([[x, h - 22], [x, h - 16]]), "white", 1.5);
        write(pen, whole % 45 ? `${whole}°` : named(whole), x, h - 4);
      }
      Object.assign(pen, { strokeStyle: "rgba(255,255,255,.35)", lineWidth: 1 });
      pen.stroke(line([[0, horizon], [w, horizon]]));
      outlined(pen, line([[w / 2, 0], [w / 2, h - 24]]), YELLOW, 1.5);
    },
    drawPhoto(pen, w, h) {
      const box = this.photoBox(w, h), image = this.image(this.camera.image);
      if (image) pen.drawImage(image, ...box);
      pen.save();
      pen.beginPath();
      pen.rect(...box);
      pen.clip();
      const along = (bearing, from, to) => Array.from({ length: 41 }, (_, i) =>
        this.placeInPhoto(bearing, from + ((to - from) * i) / 40, box)).filter(Boolean);
      const across = Array.from({ length: 61 }, (_, i) => this.placeInPhoto(this.heading - 75 + 2.5 * i, 0, box));
      Object.assign(pen, { strokeStyle: "rgba(255,255,255,.7)", lineWidth: 1 });
      pen.setLineDash([6, 5]);
      pen.stroke(line(across.filter(Boolean)));
      pen.setLineDash([]);
      for (let bearing = Math.ceil((this.heading - 75) / 15) * 15; bearing < this.heading + 75; bearing += 15) {
        const at = this.placeInPhoto(bearing, 0, box), whole = ((bearing % 360) + 360) % 360;
        if (at) write(pen, whole % 45 ? `${whole}°` : named(whole), at[0], at[1] - 6);
      }
      if (Math.abs(wrap(this.look - this.heading)) < 85) outlined(pen, line(along(this.look, -70, 70)), YELLOW, 1.5);
      pen.restore();
    },

    // --- the map ---
    drawMap() {
      const [pen, w, h] = paper(this.map), { map, layers = [] } = this.value;
      Object.assign(pen, { fillStyle: "#2a2d31", imageSmoothingEnabled: this.scale < 6 });
      pen.fillRect(0, 0, w, h);
      const put = (url, [x, y, wide, high], opacity) => {
        const image = this.image(url);
        pen.globalAlpha = opacity;
        if (image) pen.drawImage(image, this.x + x * this.scale, this.y + y * this.scale, wide * this.scale, high * this.scale);
        pen.globalAlpha = 1;
      };
      put(map.image, [0, 0, map.width, map.height], 1);
      for (const layer of layers) {
        const state = this.kept[layer.name];
        if (!state.shown) continue;
        if (layer.image) put(layer.image, layer.box, state.opacity);
        if (layer.beliefs && this.here.belief) put(this.here.belief.image, this.here.belief.box, 0.85);
        for (const shape of layer.shapes || []) this.drawShape(pen, shape, layer.colour);
        for (const mark of layer.marks || []) this.drawMark(pen, mark, layer.colour);
      }
      if (this.place && this.camera) this.drawWedge(pen);
      if (this.measured.length) {
        const ends = this.measured.map((end) => this.toScreen(end));
        outlined(pen, line(ends), "white", 2);
        for (const [x, y] of ends) this.drawMark(pen, { x, y, screen: true, radius: 4 }, "white");
      }
      this.drawScale(pen, w, h);
    },
    drawWedge(pen) {
      const [x, y] = this.toScreen(this.place), [middle, opening] = this.wedge;
      const angle = (bearing) => (bearing - 90) * RADIANS, [from, to] = [angle(middle - opening / 2), angle(middle + opening / 2)];
      const way = (reach) => [x + reach * Math.sin(this.look * RADIANS), y - reach * Math.cos(this.look * RADIANS)];
      const path = new Path2D();
      if (opening < 359) path.moveTo(x, y);
      path.arc(x, y, WEDGE, from, to);
      if (opening < 359) path.closePath();
      pen.fillStyle = "rgba(240,228,66,.22)";
      pen.fill(path);
      outlined(pen, path, YELLOW, 1);
      pen.setLineDash([7, 6]);
      outlined(pen, line([way(WEDGE), way(3000)]), YELLOW, 1);
      pen.setLineDash([]);
      outlined(pen, line([way(7), way(WEDGE)]), YELLOW, 2);
      this.drawMark(pen, { x: way(WEDGE)[0], y: way(WEDGE)[1], screen: true, radius: 6 }, YELLOW);
    },
    drawShape(pen, shape, colour) {
      let path;
      if (shape.line) path = line(shape.line.map((at) => this.toScreen(at)));
      else {
        const [x, y] = this.toScreen([shape.x, shape.y]), [a, b] = [shape.along * this.scale, shape.across * this.scale];
        path = new Path2D();
        path.ellipse(x, y, a, b, (shape.bearing - 90) * RADIANS, 0, 2 * Math.PI);
      }
      if (shape.dashed) pen.setLineDash([6, 5]);
      outlined(pen, path, shape.colour || colour, shape.width || 2);
      pen.setLineDash([]);
    },
    drawMark(pen, mark, colour) {  // a number, a cross, a ring or a dot
      const [x, y] = mark.screen ? [mark.x, mark.y] : this.toScreen([mark.x, mark.y]), r = mark.radius || 7;
      const path = new Path2D();
      colour = mark.colour || colour;
      if (mark.kind === "cross") {
        for (const [dx, dy] of [[-1, -1], [-1, 1], [1, -1], [1, 1]]) {
          path.moveTo(x + 0.4 * r * dx, y + 0.4 * r * dy);
          path.lineTo(x + r * dx, y + r * dy);
        }
        outlined(pen, path, colour, 2.5);
        return;
      }
      path.arc(x, y, mark.label ? 11 : r, 0, 2 * Math.PI);
      if (mark.kind === "ring") outlined(pen, path, colour, 2.5);
      else {
        pen.fillStyle = colour;
        pen.fill(path);
        Object.assign(pen, { strokeStyle: mark.chosen ? "white" : "rgba(0,0,0,.8)", lineWidth: mark.chosen ? 3 : 1 });
        pen.stroke(path);
      }
      if (mark.label) {
        Object.assign(pen, { font: `600 ${FONT}`, textAlign: "center", fillStyle: "black" });
        pen.fillText(mark.label, x, y + 4.5);
      }
    },
    drawScale(pen, w, h) {
      write(pen, "N", w - 20, 34);
      outlined(pen, line([[w - 26, 14], [w - 20, 6], [w - 14, 14]]), "white", 2);
      const metres = this.value.map.metres;
      if (!metres) return;
      const most = (110 / this.scale) * metres, tens = 10 ** Math.floor(Math.log10(most));
      const long = [5, 2, 1].find((times) => times * tens <= most) * tens, wide = (long / metres) * this.scale;
      outlined(pen, line([[14, h - 20], [14, h - 14], [14 + wide, h - 14], [14 + wide, h - 20]]), "white", 2);
      write(pen, long >= 1000 ? `${long / 1000} km` : `${long} m`, 14 + wide / 2, h - 22);
    },
  });
})();
