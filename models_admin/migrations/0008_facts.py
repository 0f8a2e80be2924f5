from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("models_admin", "0007_fetch"),
    ]

    operations = [
        migrations.AddField(
            model_name="modelrecord",
            name="mount",
            field=models.CharField(
                blank=True,
                default="",
                help_text="where the volume was mounted on which it was last seen",
                max_length=4096,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="modelrecord",
            name="template_sha256",
            field=models.CharField(blank=True, default="", max_length=64),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="modelrecord",
            name="parameters",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="modelrecord",
            name="capabilities",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddField(
            model_name="modelrecord",
            name="licence",
            field=models.CharField(blank=True, default="", max_length=64),
            preserve_default=False,
        ),
    ]
